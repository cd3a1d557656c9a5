"""A job that is rendered and applied by hand: JobSet, Job controller and scheduler carry it to its end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.controlplane.looking import read, until
from tests.controlplane.world import ROOT, World

DEMO = ROOT / "examples" / "demo"


def demo_job(**spec: Any) -> dict[str, Any]:
    """The demo's job on two pods, with its run folder on a disk that both see."""
    job: dict[str, Any] = yaml.safe_load((DEMO / "job.yaml").read_text())
    volume = {"name": "runs", "nfs": {"server": "files.test", "path": "/runs"}}
    job["spec"] |= {
        "modelPath": str(DEMO / "checkpoint"),
        "data": {"train": str(DEMO / "data/train.jsonl"), "eval": str(DEMO / "data/held_out.jsonl")},
        "output": {"uri": "/runs"},
        "volumes": [volume],
        "volumeMounts": [{"name": "runs", "mountPath": "/runs"}],
        "checkpoint": {"everySteps": 2},
    } | spec
    return job


def small_job() -> dict[str, Any]:
    """One that is soon done: two steps of 32 sequences."""
    return demo_job(
        steps=2,
        evalEverySteps=0,
        rollout={"batchSize": 32, "numPreQ": 8, "globalLength": 24, "maxLengthSample": 16},
        train={"microBatchSize": 16},
    )


def test_a_rendered_job_trains_to_its_end(world: World, namespace: str, tmp_path: Path) -> None:
    """`grpoctl render | kubectl apply -f -`: two pods find each other by name, and train as one run."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(small_job()))
    command = [sys.executable, "-m", "controller", "render", str(tmp_path / "job.yaml")]
    rendered = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    applied = world.kubectl("-n", namespace, "apply", "-f", "-", stdin=rendered)
    assert applied.returncode == 0, applied.stderr
    state = until(lambda: terminal(world, namespace, "demo-sums"), "the JobSet's end", 300)
    pods = read(world, namespace, "pods")["items"]
    assert state == "Completed", [pod["status"]["containerStatuses"][0]["state"] for pod in pods]
    assert len(pods) == 2
    (metrics,) = world.folder.glob("pods/shared/runs/demo-sums-*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


def terminal(world: World, namespace: str, name: str) -> str | None:
    found: str | None = read(world, namespace, "jobset", name).get("status", {}).get("terminalState")
    return found
