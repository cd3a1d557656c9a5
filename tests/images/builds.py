"""The two images, built, looked at, and run under the security context of the pods that they are for.

Run by `make test-all` on Linux as root; no other command collects this file, for it builds for minutes.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller import __version__
from controller.local.pods import Pod, environment_of, pods_of
from tests.controlplane.admission import install_crd
from tests.controlplane.plane import NODE_ADDRESS
from tests.controlplane.world import World
from tests.images.building import ROOT, Store, Tell
from tests.images.containers import Container, Running, owned
from trainer.contract.exits import Cause, ExitCode
from trainer.contract.run import READABLE_VERSIONS

DEMO = ROOT / "examples" / "demo"
LONG = 100_000
"""Steps of a run that no test waits for."""
PATIENCE = 900.0
"""Seconds that only a failure takes: without kept programs a step compiles for a minute, for many beside other work."""


def printed(files: Path, folder: Path, image: dict[str, Any], *command: str) -> str:
    """What a command prints in a container of the image that ends with 0."""
    running = Running(Container(command, environment_in(image)), files, folder)
    code = running.wait(PATIENCE)
    said = running.log.read_text()
    assert code == 0, said
    return said


def environment_in(image: dict[str, Any]) -> dict[str, str]:
    return dict(variable.split("=", 1) for variable in image["Env"])


def until(holds: Callable[[], Any], running: Running, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert not running.ended, running.log.read_text()[-3000:]
        assert time.monotonic() < end, f"not in {seconds:.0f} s: {running.log.read_text()[-3000:]}"
        time.sleep(0.1)


@pytest.mark.parametrize(("half", "variant"), [("controller", {}), ("trainer", {"VARIANT": "cpu"})])
def test_an_image_says_what_it_is(half: str, variant: dict[str, str], images: Store, tell: Tell) -> None:
    """It runs as a user without rights, stops by SIGTERM, and its labels tell version, licence, base and source."""
    image = images.configuration(images.build(half, tell, **variant))
    label = "org.opencontainers.image"
    assert (image["User"], image["StopSignal"], image["WorkingDir"]) == ("65532:65532", "SIGTERM", "/workspace")
    assert image["Labels"][f"{label}.version"] == __version__
    assert image["Labels"][f"{label}.base.name"] == images.base(tell)
    assert image["Labels"][f"{label}.licenses"] == "Apache-2.0"


def test_an_image_lists_what_is_in_it(images: Store, tell: Tell) -> None:
    """The target `sbom` is one file, a CycloneDX listing with every package of the lock and no tool of the build."""
    with images.files(images.build("controller", tell, target="sbom")) as root:
        assert [path.name for path in root.iterdir() if path.is_file()] == ["sbom.json"]
        listing = json.loads((root / "sbom.json").read_text())
    found = {part["name"].lower().replace("_", "-"): part["version"] for part in listing["components"]}
    locked = re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", (ROOT / ".ci/requirements/controller.txt").read_text(), re.M)
    assert found.items() >= dict(locked).items()
    assert found.keys() - dict(locked).keys() == {"grpo-operator"}


def test_the_controllers_image_holds_the_operator_and_no_trainer(
    images: Store, controller_image: str, controller_files: Path, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    """Its entry point is the operator; grpoctl is beside it; JAX, pip and a compiler are not."""
    image = images.configuration(controller_image)
    record_property("bytes", images.size(controller_image))
    assert printed(controller_files, tmp_path / "a", image, *image["Entrypoint"], "--version").strip() == __version__
    assert "Trainer image of jobs" in printed(controller_files, tmp_path / "b", image, *image["Entrypoint"], "--help")
    absent = "import importlib.util as u; print([n for n in ('jax', 'numpy', 'pip', 'setuptools') if u.find_spec(n)])"
    assert printed(controller_files, tmp_path / "c", image, "python", "-c", absent).strip() == "[]"
    job = owned(tmp_path / "jobs") / "job.yaml"
    job.write_text((ROOT / "configs/jobs/qwen2.5-3b-gsm8k-v6e-4x4.yaml").read_text())
    running = Running(
        Container(["grpoctl", "validate", "/jobs/job.yaml"], environment_in(image), read_only={"/jobs": job.parent}),
        controller_files,
        tmp_path / "d",
    )
    assert running.wait(PATIENCE) == 0, running.log.read_text()


def test_what_the_chart_starts_is_in_the_controllers_image(
    images: Store, controller_image: str, controller_files: Path, tmp_path: Path
) -> None:
    """Each command of the chart's pods, the one of `helm test` too, is there and knows every flag that it is given."""
    image = images.configuration(controller_image)
    rendered = yaml.safe_load_all((ROOT / "tests/controlplane/chart/rendered/default.yaml").read_text())
    bodies = [one for one in rendered if one and one["kind"] in ("Deployment", "Pod")]
    specs = [one["spec"].get("template", one)["spec"] for one in bodies]
    commands = [[*one["command"], *one["args"], "--help"] for spec in specs for one in spec["containers"]]
    assert len(commands) == 2
    for number, command in enumerate(commands):
        assert "Usage:" in printed(controller_files, tmp_path / str(number), image, *command)


def test_the_controllers_image_answers_its_probes(
    images: Store, controller_image: str, controller_files: Path, world: World, tmp_path: Path
) -> None:
    """Beside a real API server it lives, becomes ready, and ends with 0 on SIGTERM."""
    install_crd(world)
    image = images.configuration(controller_image)
    flags = ["--kubeconfig=/cluster/kubeconfig", f"--metrics={NODE_ADDRESS}:18080", "--webhook=none", "--progress=none"]
    cluster = owned(tmp_path / "cluster")
    configuration = yaml.safe_load(world.inner_kubeconfig.read_text())
    configuration["clusters"][0]["cluster"]["certificate-authority"] = "/cluster/ca.crt"
    (cluster / "kubeconfig").write_text(yaml.safe_dump(configuration))
    (cluster / "ca.crt").write_bytes(world.authority.read_bytes())
    container = Container([*image["Entrypoint"], *flags], environment_in(image), read_only={"/cluster": cluster})
    running = Running(container, controller_files, tmp_path / "operator", prefix=world.inside())
    try:
        for path in ("healthz", "readyz"):
            asked = [sys.executable, "-c", ASK, f"http://{NODE_ADDRESS}:18080/{path}"]
            until(lambda asked=asked: subprocess.run(world.inside(*asked), check=False).returncode == 0, running)
        running.signal("TERM")
        assert running.wait(PATIENCE) == 0, running.log.read_text()[-3000:]
    finally:
        running.end()


ASK = "import sys, urllib.request as r; sys.exit(r.urlopen(sys.argv[1], timeout=2).status != 200)"


def test_the_trainers_image_says_which_contract_it_reads(
    images: Store, trainer_image: str, trainer_files: Path, tmp_path: Path
) -> None:
    """Its label and its answer are the versions of run.json that its code reads."""
    image = images.configuration(trainer_image)
    said = printed(trainer_files, tmp_path / "container", image, *image["Entrypoint"], "--contract-version").split()
    assert said == image["Labels"]["dev.grpo.contract-versions"].split(",") == [str(one) for one in READABLE_VERSIONS]


class RenderedPod:
    """The one pod of a job that was rendered, as a container of the trainer's image: its env, volumes and user."""

    def __init__(self, image: dict[str, Any], folder: Path, steps: int) -> None:
        self.runs = folder / "runs"
        job = _job(steps)
        (folder / "job.yaml").write_text(yaml.safe_dump(job))
        command = [sys.executable, "-m", "controller", "render", str(folder / "job.yaml")]
        rendered = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        config_map, job_set = yaml.safe_load_all(rendered)
        (self._pod,) = pods_of(job_set, attempt=0)
        self._image, self._folder, self._config = image, folder, config_map["data"]
        self.termination_log = folder / "termination-log"

    def container(self) -> Container:
        pod, ours = self._pod, self._pod.container
        security = pod.spec["securityContext"]
        assert ours["securityContext"]["readOnlyRootFilesystem"] is True
        writable, read_only = self._volumes(pod)
        self.termination_log.touch()
        self.termination_log.chmod(0o666)
        return Container(
            command=[*ours["command"], *ours["args"]],
            environment=environment_in(self._image) | environment_of(pod, {}, {}),
            user=security["runAsUser"],
            working_folder=ours["workingDir"],
            writable=writable | {ours["terminationMessagePath"]: self.termination_log},
            read_only=read_only,
        )

    def _volumes(self, pod: Pod) -> tuple[dict[str, Path], dict[str, Path]]:
        known = {"run-config": self._folder / "run-config", "runs": self.runs, "inputs": DEMO}
        known["run-config"].mkdir()
        for key, text in self._config.items():
            (known["run-config"] / key).write_text(text)
        writable, read_only = {}, {}
        for mount in pod.container["volumeMounts"]:
            name = mount["name"]
            path = known.get(name) or owned(self._folder / name)
            (read_only if mount.get("readOnly") else writable)[mount["mountPath"]] = path
        return writable, read_only


def _job(steps: int) -> dict[str, Any]:
    """The demo's job on one pod, with inputs and run folder on volumes."""
    job: dict[str, Any] = yaml.safe_load((DEMO / "job.yaml").read_text())
    job["spec"] |= {
        "steps": steps,
        "evalEverySteps": 0,
        "modelPath": "/inputs/checkpoint",
        "data": {"train": "/inputs/data/train.jsonl", "eval": "/inputs/data/held_out.jsonl"},
        "cpu": {"hosts": 1, "devicesPerHost": 2},
        "rollout": {"batchSize": 32, "numPreQ": 8, "globalLength": 24, "maxLengthSample": 16},
        "train": {"microBatchSize": 16},
        "output": {"uri": "/runs"},
        "checkpoint": {"everySteps": LONG},
        "volumes": [
            {"name": "runs", "persistentVolumeClaim": {"claimName": "runs"}},
            {"name": "inputs", "persistentVolumeClaim": {"claimName": "inputs"}},
        ],
        "volumeMounts": [
            {"name": "runs", "mountPath": "/runs"},
            {"name": "inputs", "mountPath": "/inputs", "readOnly": True},
        ],
    }
    return job


def steps_done(pod: RenderedPod) -> int:
    return sum(len(path.read_text().splitlines()) for path in pod.runs.glob("demo-sums-*/metrics.jsonl"))


def test_a_rendered_pod_trains_in_the_trainers_image(
    images: Store, trainer_image: str, trainer_files: Path, tmp_path: Path, record_property: Callable[..., None]
) -> None:
    """One step, as a user without rights over a read-only root: what the JobSet's pod is given is all that it needs."""
    record_property("bytes", images.size(trainer_image))
    pod = RenderedPod(images.configuration(trainer_image), tmp_path, steps=1)
    owned(pod.runs)
    running = Running(pod.container(), trainer_files, tmp_path / "container")
    assert running.wait(PATIENCE) == ExitCode.DONE, running.log.read_text()[-3000:]
    assert steps_done(pod) == 1


def test_sigterm_to_process_1_leaves_a_checkpoint(
    images: Store, trainer_image: str, trainer_files: Path, tmp_path: Path
) -> None:
    """The trainer is process 1 of its container: asked to stop, it saves the step that it is at and ends with 10."""
    pod = RenderedPod(images.configuration(trainer_image), tmp_path, steps=LONG)
    owned(pod.runs)
    running = Running(pod.container(), trainer_files, tmp_path / "container")
    try:
        until(lambda: steps_done(pod) >= 2, running)
        running.signal("TERM")
        assert running.wait(PATIENCE) == ExitCode.PREEMPTED, running.log.read_text()[-3000:]
    finally:
        running.end()
    saved = [path.name for path in pod.runs.glob("demo-sums-*/checkpoints/*") if path.name.isdigit()]
    assert saved == [str(steps_done(pod))]
    assert Cause.from_json(pod.termination_log.read_text()).code is ExitCode.PREEMPTED
