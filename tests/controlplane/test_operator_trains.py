"""The whole road: `kubectl apply`, the operator's process, JobSet, Jobs, pods, the real trainer, and its end."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane.operating import Operating
from tests.controlplane.processes import Process
from tests.controlplane.test_without_operator import demo_job, small_job
from tests.controlplane.world import ROOT, World

STEPS = 12
MEASURED = ("time/", "throughput/", "memory/")


@pytest.fixture
def operator(world: World, operating: Operating) -> Iterator[Process]:
    """The operator of the test's namespace as a process of its own."""
    process = Process(world, operating.namespace)
    yield process
    process.end()


def apply(operating: Operating, name: str, job: dict[str, Any]) -> None:
    job["metadata"]["name"] = name
    applied = operating.world.kubectl("-n", operating.namespace, "apply", "-f", "-", stdin=yaml.safe_dump(job))
    assert applied.returncode == 0, applied.stderr


def rows(operating: Operating, name: str) -> list[dict[str, Any]]:
    (path,) = operating.world.folder.glob(f"pods/shared/runs/{name}-*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_job_trains_to_its_end(operating: Operating, operator: Process) -> None:
    """Applied, it runs on two pods, tells its progress through the endpoint, and succeeds with a reward that rose."""
    apply(operating, "trains", demo_job(steps=STEPS, evalEverySteps=0))
    operating.wait_phase("trains", "Running", seconds=120)
    seen = operating.wait(lambda: operating.status("trains").get("progress"), "the first report", 120)
    assert seen["totalSteps"] == STEPS
    status = operating.wait_phase("trains", "Succeeded", "Failed", seconds=600)
    assert status["phase"] == "Succeeded", (status["conditions"], operator.log.read_text()[-2000:])
    assert status["progress"]["display"] == f"{STEPS}/{STEPS}"
    rewards = [row["reward/total/mean"] for row in rows(operating, "trains") if "reward/total/mean" in row]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3
    told = operating.world.kubectl("-n", operating.namespace, "get", "grpojob", "trains").stdout.split()
    assert "Succeeded" in told
    assert f"{STEPS}/{STEPS}" in told


@pytest.mark.long
def test_a_pod_killed_in_the_middle_changes_nothing(operating: Operating, operator: Process, tmp_path: Path) -> None:
    """The run resumes from its checkpoint, and ends with the parameters of a run that nobody disturbed."""
    for name in ("calm", "killed"):
        job = small_job()
        job["spec"] |= {"steps": 6, "lifecycle": {"terminationGracePeriodSeconds": 20}}
        apply(operating, name, job)
    operating.wait(lambda: step_of(operating, "killed") >= 3, "step 3", 300)
    victim = operating.pods("killed")[1]["metadata"]["name"]
    operating.world.kubectl("-n", operating.namespace, "delete", "pod", victim, "--grace-period=0", "--force")
    for name in ("calm", "killed"):
        assert operating.wait_phase(name, "Succeeded", "Failed", seconds=600)["phase"] == "Succeeded"
    assert len(operating.attempts("killed")) == 1
    calm, killed = (plain(rows(operating, name)) for name in ("calm", "killed"))
    assert calm == killed
    assert exported(operating, "calm", tmp_path) == exported(operating, "killed", tmp_path)


def step_of(operating: Operating, name: str) -> int:
    """How far the run is, by what its process 0 reported."""
    return int((operating.status(name).get("progress") or {}).get("step", 0))


def plain(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what a clock measures."""
    return [{key: value for key, value in row.items() if not key.startswith(MEASURED)} for row in found]


def exported(operating: Operating, name: str, folder: Path) -> dict[str, str]:
    """The digest of each file with weights."""
    (run,) = operating.world.folder.glob(f"pods/shared/runs/{name}-*")
    command = [sys.executable, "-m", "trainer", "export", str(run), str(folder / name)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    found = sorted((folder / name).glob("*.safetensors"))
    assert found
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
