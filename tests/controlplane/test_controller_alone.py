"""The last of four doors: the running operator, where neither CEL nor a webhook has judged a job before."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.controlplane.admission import Client, Json, install_crd
from tests.controlplane.looking import until
from tests.controlplane.test_doors import WRITTEN, Verdict, by_grpoctl, golden_jobs
from tests.controlplane.world import ROOT, World
from tests.controlplane.written_jobs import written

NAMESPACE = "controller-alone"
SECONDS = 20 + WRITTEN // 10
LONGEST = 8000
"""Of a condition's message, more than that is cut off."""


@pytest.fixture(scope="module")
def alone(world: World) -> Iterator[Client]:
    """A CRD without rules between values, and the operator's process without its webhook."""
    install_crd(world, with_rules=False)
    world.kubectl("create", "namespace", NAMESPACE)
    flags = ["--no-leader-election", "--webhook=none", "--progress=none", "--metrics=none", f"--namespace={NAMESPACE}"]
    program = [
        sys.executable,
        "-m",
        "controller.operator",
        f"--kubeconfig={world.folder / 'kubeconfig.inside'}",
        *flags,
    ]
    with (world.folder / "controller-alone.log").open("wb") as log:
        process = subprocess.Popen(world.inside(*program), cwd=ROOT, stdout=log, stderr=log, env=dict(os.environ))
    client = Client(world)
    yield client
    process.terminate()
    process.wait(120)
    client.close()
    world.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    install_crd(world)


def named(jobs: list[Json]) -> list[Json]:
    """Suspended, so that nothing runs, and with a name of its own where its name is not what is wrong with it."""
    found = []
    for number, job in enumerate(jobs):
        metadata, spec = job.get("metadata"), job.get("spec")
        if not isinstance(metadata, dict) or not isinstance(spec, dict) or not isinstance(metadata.get("name"), str):
            continue
        name = metadata["name"] if len(metadata["name"]) > 30 else f"job-{number}"
        found.append({**job, "metadata": {**metadata, "name": name, "namespace": NAMESPACE}, "spec": {**spec}})
        found[-1]["spec"]["suspend"] = True
    return found


def validated(job: Json) -> Json | None:
    conditions = job.get("status", {}).get("conditions", ())
    return next((one for one in conditions if one["type"] == "Validated" and one["status"] != "Unknown"), None)


def agrees(condition: Json, said: Verdict) -> bool:
    """Whether the condition tells the verdict word for word."""
    if said.violations:
        told = "\n".join(said.violations)
        return bool(condition["status"] == "False" and condition["message"][:LONGEST] == told[:LONGEST])
    warnings = tuple(
        line.removeprefix("warning: ") for line in condition["message"].splitlines() if line.startswith("warning: ")
    )
    return bool(condition["status"] == "True" and warnings == said.warnings)


def test_the_controller_alone_gives_the_same_verdict(
    alone: Client, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Its condition Validated says of golden and written jobs what `grpoctl validate` says, word for word."""
    jobs = named([*golden_jobs(), *written(WRITTEN)])
    said = {}
    for job in jobs:
        if alone.create(NAMESPACE, job, "?fieldValidation=Strict").status == 201:
            name = job["metadata"]["name"]
            said[name], _ = by_grpoctl(job, tmp_path / f"{name}.yaml")

    def judged() -> dict[str, Json] | None:
        time.sleep(0.5)  # a list of thousands is work for the API server too
        found = alone.jobs(NAMESPACE)
        return found if all(validated(found[name]) for name in said) else None

    found = until(judged, "a verdict on each job", SECONDS)
    wrong = [name for name, verdict in said.items() if not agrees(validated(found[name]) or {}, verdict)]
    assert wrong == [], (said[wrong[0]], validated(found[wrong[0]]))
    fared = Counter("refused" if verdict.violations else "accepted" for verdict in said.values())
    record_property("jobs at the controller alone", dict(fared))
    assert min(fared["refused"], fared["accepted"]) >= WRITTEN // 6
