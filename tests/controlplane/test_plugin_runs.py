"""`kubectl grpo` and what a run leaves: the real trainer's log, folder and page, with its pods there and gone."""

from pathlib import Path

import pytest
import yaml

from controller.cluster.resources import GRPOJOBS, PODS
from tests.controlplane.operating import Operating
from tests.controlplane.plugging import Plugin
from tests.controlplane.test_without_operator import small_job

STEPS = ("step 1/2", "step 2/2")


@pytest.fixture
def trained(operating: Operating, grpo: Plugin, tmp_path: Path) -> str:
    """A job that has trained to its end, its run folder on a volume."""
    operating.start()
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(small_job()))
    grpo("submit", str(tmp_path / "job.yaml"))
    assert operating.wait_phase("demo-sums", "Succeeded", "Failed", seconds=300)["phase"] == "Succeeded"
    return "demo-sums"


@pytest.mark.long
def test_a_run_is_read_after_its_pods_are_gone(
    operating: Operating, grpo: Plugin, trained: str, tmp_path: Path
) -> None:
    """The log comes from the pod, then from the run folder; that is copied, and has a page. A volume is to be named."""
    volume = operating.world.folder / "pods" / "shared" / "runs"
    from_pod = grpo("logs", trained).stdout
    assert all(step in from_pod for step in STEPS)
    for pod in operating.pods(trained):
        operating.api.delete(PODS, pod["metadata"]["name"], operating.namespace)
    operating.wait(lambda: not operating.pods(trained), "the end of the pods")
    lost = grpo("logs", trained, code=1).stderr
    assert "is not on this machine; mount its volume here, and say where spec.output.uri is: --output-uri" in lost
    for words in (("logs", trained), ("logs", trained, "-f"), ("logs", trained, "--attempt", "0", "--host", "1")):
        told = grpo.run(*words, "--output-uri", str(volume))
        assert "--- the pod is gone; from " in told
        assert all(step in told for step in STEPS) or "--host" in words
    assert "holds no logs/attempt-7" in grpo.run("logs", trained, "--attempt", "7", "--output-uri", str(volume), code=1)
    here = tmp_path / "here"
    assert "files" in grpo.run("fetch", trained, str(here), "--output-uri", str(volume))
    assert {"run.json", "metrics.jsonl", "logs"} <= {path.name for path in here.iterdir()}
    assert not (here / "checkpoints").exists()
    page = tmp_path / "page.html"
    grpo.run("report", trained, "--output-uri", str(volume), "-o", str(page))
    assert "demo-sums" in page.read_text()
    told = grpo("cancel", trained).stdout
    assert f"{trained} cancelled; its run folder stays: /runs/{trained}-" in told
    operating.wait(lambda: operating.get(GRPOJOBS, trained) is None, "the end of the job")
