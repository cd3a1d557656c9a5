"""The chart's life in a cluster: installed, upgraded, rolled back and uninstalled, with jobs that notice none of it.

The operator's pods are run by the kubelet with the chart's own account, rights and limits to what they may write.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from controller.cluster.resources import JOB_SETS
from tests.controlplane.operating import Operating
from tests.controlplane.releases import DEFINITION, FROZEN, Release, forget_definition
from tests.controlplane.world import ROOT, World

RUN = [["run"]] * 9


@pytest.fixture
def release(world: World, namespace: str) -> Iterator[Release]:
    """Not installed yet, in a cluster that knows nothing of GRPOJobs."""
    forget_definition(world)
    release = Release(world, "grpo", f"{namespace}-system")
    yield release
    release.uninstall()
    forget_definition(world)
    world.kubectl("delete", "namespace", release.namespace, "--wait=false")


@pytest.fixture
def jobs(world: World, namespace: str, release: Release) -> Iterator[Operating]:
    """Jobs in a namespace that is not the operator's."""
    jobs = Operating(world, namespace, define=False)
    yield jobs
    jobs.close()


def succeed(done: Any) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.mark.long
def test_a_first_job_trains_after_the_install(release: Release, jobs: Operating) -> None:
    """Two commands: the chart, and the demo's job with its model as a ConfigMap. It reports through the Service, and
    its reward is told.
    """
    notes = succeed(release.install())
    assert "kubectl apply --server-side -k examples/demo" in notes
    assert "ok      a good job" in succeed(release.run("test", "--logs"))
    sample = str(ROOT / "examples" / "demo")
    succeed(jobs.world.kubectl("-n", jobs.namespace, "apply", "--server-side", "-k", sample))
    jobs.wait(lambda: (jobs.status("first").get("progress") or {}).get("step"), "a report", 180)
    status = jobs.wait_phase("first", "Succeeded", "Failed", seconds=300)
    assert status["phase"] == "Succeeded", (status["conditions"], release.log()[-2000:])
    assert status["progress"]["display"] == "12/12"


def test_jobs_outlive_upgrade_rollback_and_uninstall(release: Release, jobs: Operating) -> None:
    """From the frozen chart to this one and back: no JobSet is written, and the next install goes on with the jobs. An
    upgrade with a misspelt value, or to an image that cannot be pulled, fails, and the replicas of before work on.
    """
    succeed(release.install(chart=FROZEN))
    jobs.apply("runs", RUN)
    jobs.apply("rests", [["0"]], suspend=True)
    jobs.wait_phase("runs", "Running")
    jobs.wait_phase("rests", "Suspended")
    before = written(jobs)

    succeed(release.upgrade(trainer__image="registry.test/trainer:2", workers=8))
    assert image_of(jobs, "after-upgrade") == "registry.test/trainer:2"
    assert unchanged(before, jobs)
    assert "additional properties 'replcas' not allowed" in release.upgrade(replcas=3).stderr
    assert release.upgrade("--wait", "--timeout=5s", image__repository="missing.test/operator").returncode != 0
    image_of(jobs, "after-failure")
    assert unchanged(before, jobs)
    succeed(release.run("rollback", "1", "--wait"))
    assert image_of(jobs, "after-rollback") != "registry.test/trainer:2"
    assert unchanged(before, jobs)

    succeed(release.uninstall())
    assert unchanged(before, jobs)
    assert jobs.status("runs")["phase"] == "Running"
    assert all(pod["status"]["phase"] == "Running" for pod in jobs.pods("runs"))
    assert release.world.kubectl("get", DEFINITION).returncode == 0
    succeed(release.install())
    jobs.change("rests", suspend=False)
    jobs.wait_phase("rests", "Succeeded")
    assert unchanged(before, jobs)


def written(jobs: Operating) -> dict[str, Any]:
    """Each JobSet's generation, and who wrote it when; but for its status, which is JobSet's own."""
    found = (one["metadata"] for one in jobs.api.list(JOB_SETS, jobs.namespace)["items"])
    return {
        one["name"]: (one["uid"], one["generation"], [by for by in one["managedFields"] if "subresource" not in by])
        for one in found
    }


def unchanged(before: dict[str, Any], jobs: Operating) -> bool:
    after = written(jobs)
    return bool(before) and {name: after.get(name) for name in before} == before and "rests" not in before


def image_of(jobs: Operating, name: str) -> str:
    """Of the pods of a new job, which runs to its end: the operator that makes it is at work."""
    jobs.apply(name, [["0"]])
    jobs.wait_phase(name, "Succeeded")
    job_set = jobs.job_set(name)
    assert job_set is not None
    pod = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return str(pod["containers"][0]["image"])
