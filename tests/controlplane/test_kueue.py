"""Kueue in the control plane of the tests: JobSets and jobs wait for quota, say why, run, and give way."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.controlplane.looking import read, until
from tests.controlplane.operating import Operating
from tests.controlplane.queues import QUEUE, admit_again, drain, give_quota
from tests.controlplane.test_plane import job_set
from tests.controlplane.world import World


def queued(name: str, command: str) -> dict[str, Any]:
    """Two pods of one CPU each."""
    body = job_set(command)
    body["metadata"] = {"name": name, "labels": {"kueue.x-k8s.io/queue-name": QUEUE}}
    body["spec"]["suspend"] = True
    (container,) = body["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    container["resources"] = {"requests": {"cpu": "1"}}
    return body


def test_a_job_set_waits_for_quota_and_gives_way(kueue: World, namespace: str) -> None:
    """The second waits and is told what is missing; drained, the first is suspended, and its pods go; then both run."""
    give_quota(kueue, namespace, cpus=2)
    for name, command in (("first", "sleep 1000"), ("second", "exit 0")):
        kueue.kubectl("-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump(queued(name, command)))
        if name == "first":
            until(lambda: running(kueue, namespace) == 2, "the first's pods")

    waiting = until(lambda: pending(kueue, namespace), "the second's reason")
    assert "insufficient unused quota for cpu in flavor any, 2 more needed" in waiting
    drain(kueue, namespace)
    until(lambda: read(kueue, namespace, "jobset", "first")["spec"]["suspend"], "the first's eviction")
    until(lambda: not read(kueue, namespace, "pods")["items"], "the end of its pods")
    kueue.kubectl("-n", namespace, "delete", "jobset", "first")
    admit_again(kueue, namespace)
    until(
        lambda: read(kueue, namespace, "jobset", "second").get("status", {}).get("terminalState") == "Completed",
        "the second's end",
    )


def running(world: World, namespace: str) -> int:
    return sum(pod["status"]["phase"] == "Running" for pod in read(world, namespace, "pods")["items"])


def pending(world: World, namespace: str) -> str:
    """What the Workloads that wait say."""
    workloads = read(world, namespace, "workloads.kueue.x-k8s.io")["items"]
    conditions = [condition for workload in workloads for condition in workload.get("status", {}).get("conditions", ())]
    return " ".join(one["message"] for one in conditions if (one["type"], one["status"]) == ("QuotaReserved", "False"))


@pytest.fixture
def queue(kueue: World, operating: Operating) -> Iterator[Operating]:
    """An operator in a namespace with quota for one pod."""
    give_quota(kueue, operating.namespace, cpus=1)
    operating.start()
    yield operating
    operating.stop()


def test_a_job_waits_runs_and_gives_way(queue: Operating) -> None:
    """Kueue's words stand on the job that waits; an eviction is counted apart and spends nothing; while it waits the
    job may be suspended, and it queues again when it is resumed.
    """
    namespace = queue.namespace
    queue.apply("first", [["run"], ["run"]], queue={"localQueue": QUEUE})
    queue.wait_phase("first", "Running")
    queue.apply("second", [["0"]], queue={"localQueue": QUEUE})
    queue.wait(lambda: "insufficient unused quota for cpu" in queue.message("second", "Admitted"), "why it waits")
    assert queue.status("second")["phase"] == "Queued"

    uid = queue.status("first")["attempts"]["jobSetUid"]
    drain(queue.world, namespace)
    queue.wait(lambda: queue.status("first")["attempts"]["evictions"] == 1, "the eviction")
    queue.wait_phase("first", "Queued")
    assert queue.attempts("first")[-1]["class"] == "Eviction"
    assert "stopped" in queue.attempts("first")[-1]["message"].lower()
    queue.change("first", suspend=True)
    queue.wait(lambda: queue.job_set("first") is None, "the end of its JobSet")
    admit_again(queue.world, namespace)
    queue.wait_phase("second", "Succeeded")
    queue.change("first", suspend=False)
    ledger = queue.wait_phase("first", "Running")["attempts"]
    assert ledger["jobSetUid"] != uid
    assert [ledger[key] for key in ("evictions", "restarts", "disruptions")] == [1, 0, 0]


def test_an_evicted_run_goes_on_in_its_job_set(queue: Operating) -> None:
    """Admitted again it runs on in the same JobSet; pods that were stopped are not blamed later."""
    queue.apply("away", [["run"]], queue={"localQueue": QUEUE})
    uid = queue.wait_phase("away", "Running")["attempts"]["jobSetUid"]
    drain(queue.world, queue.namespace)
    queue.wait_phase("away", "Queued")
    queue.wait(lambda: not queue.pods("away"), "the end of its pods")
    admit_again(queue.world, queue.namespace)
    ledger = queue.wait_phase("away", "Running")["attempts"]
    assert ledger["jobSetUid"] == uid
    assert [ledger[key] for key in ("evictions", "restarts", "disruptions")] == [1, 0, 0]
    assert "ending" not in ledger
