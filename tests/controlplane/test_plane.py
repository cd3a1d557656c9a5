"""The control plane of the tests itself: its parts are real, and its kubelet does what one does."""

import time
from typing import Any

import yaml

from tests.controlplane.looking import read, until
from tests.controlplane.world import World

SCRIPT = """
until found=$(getent hosts pair-w-0-0.pair) && getent hosts pair-w-0-1.pair; do sleep 0.05; done
echo $JOB_COMPLETION_INDEX $(hostname) $(echo $found | awk '{print $2}') > /dev/termination-log
sleep $((3 - JOB_COMPLETION_INDEX))  # the other finds this one's name only while it lives
test "$JOB_COMPLETION_INDEX$ATTEMPT" = 10 && exit 42
exit 0
"""


def job_set(command: str) -> dict[str, Any]:
    """Two pods that are restarted once together."""
    attempt = {"fieldRef": {"fieldPath": "metadata.annotations['jobset.sigs.k8s.io/restart-attempt']"}}
    container: dict[str, Any] = {"name": "c", "image": "none", "command": ["sh", "-c", command]}
    container |= {"env": [{"name": "ATTEMPT", "valueFrom": attempt}]}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [container]}
    job = {
        "parallelism": 2,
        "completions": 2,
        "backoffLimit": 0,
        "completionMode": "Indexed",
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "pair"},
        "spec": {
            "failurePolicy": {"maxRestarts": 1},
            "replicatedJobs": [{"name": "w", "replicas": 1, "template": {"spec": job}}],
        },
    }


def test_a_failed_pod_restarts_its_job_set(world: World, namespace: str) -> None:
    """Pods see their index, their attempt and each other's names; what they end with reaches Job and JobSet."""
    world.kubectl("-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump(job_set(SCRIPT)))
    status = until(lambda: ended(world, namespace), "the end of the JobSet")
    assert (status["terminalState"], status["restarts"]) == ("Completed", 1)
    told = [
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"].split()
        for pod in read(world, namespace, "pods")["items"]
    ]
    names = {(index, name) for index, name, _ in told}
    assert names == {("0", "pair-w-0-0"), ("1", "pair-w-0-1")}
    assert {found for *_, found in told} == {"pair-w-0-0.pair"}


def ended(world: World, namespace: str) -> dict[str, Any] | None:
    status = read(world, namespace, "jobset", "pair").get("status", {})
    return status if status.get("terminalState") else None


def test_an_api_server_that_was_away_is_told_what_happened(world: World, namespace: str) -> None:
    """A pod that ends meanwhile is seen to have ended, and what is kept is still there."""
    pod = job_set("sleep 1; exit 7")["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    pod["containers"][0].pop("env")
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone"}, "spec": pod}
    world.kubectl("-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump(body))
    until(lambda: read(world, namespace, "pod", "alone").get("status", {}).get("phase") == "Running", "the pod")
    world.stop("kube-apiserver")
    assert world.kubectl("get", "namespaces", "--request-timeout=2s").returncode != 0
    time.sleep(1.5)
    world.start("kube-apiserver")
    assert until(lambda: terminated(read(world, namespace, "pod", "alone")), "the pod's end")["exitCode"] == 7


def test_a_deleted_pod_has_its_grace(world: World, namespace: str) -> None:
    """SIGTERM reaches process 1 of the container, which has time to end; then the pod is gone."""
    command = "trap 'echo asked > /dev/termination-log; sleep 1; exit 3' TERM; while true; do sleep 0.1; done"
    pod = job_set(command)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    pod["containers"][0].pop("env")
    metadata = {"name": "alone", "finalizers": ["test.example/look"]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}
    world.kubectl("-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump(body))
    until(lambda: read(world, namespace, "pod", "alone").get("status", {}).get("phase") == "Running", "the pod")
    time.sleep(0.5)
    world.kubectl("-n", namespace, "delete", "pod", "alone", "--wait=false")
    seen = until(lambda: terminated(read(world, namespace, "pod", "alone")), "the pod's last state")
    assert (seen["exitCode"], seen["message"].strip()) == (3, "asked")
    world.kubectl(
        "-n", namespace, "patch", "pod", "alone", "--type=merge", '--patch={"metadata": {"finalizers": null}}'
    )
    until(lambda: not read(world, namespace, "pod", "alone"), "the pod's end")


def terminated(pod: dict[str, Any]) -> dict[str, Any] | None:
    (container,) = pod.get("status", {}).get("containerStatuses", [{}])
    found: dict[str, Any] | None = container.get("state", {}).get("terminated")
    return found
