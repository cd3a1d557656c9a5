"""Kueue in the control plane of the tests: a JobSet waits for quota, says why, runs, and gives way."""

from typing import Any

import yaml

from tests.controlplane.looking import read, until
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
