"""Why a job does not run yet: one line, in the words of who knows."""

from typing import Any

from tests.controller.observing import Cluster, job_of, pod


def waiting(*pods: Any, **changes: Any) -> Cluster:
    cluster = Cluster(job_of(**changes.pop("spec", {})))
    cluster.settle()
    cluster.pods = list(pods)
    cluster.step(**changes)
    return cluster


def test_kueue_is_quoted() -> None:
    """Reason and message of the Workload, while the JobSet is held."""
    told = {
        "type": "QuotaReserved",
        "status": "False",
        "reason": "Pending",
        "message": "couldn't assign flavors to pod set slice: insufficient quota for google.com/tpu, 4 more needed",
    }
    cluster = waiting(spec={"queue": {"localQueue": "team"}}, workload={"status": {"conditions": [told]}})
    assert cluster.condition("Admitted") == ("False", "Queued")
    assert cluster.message("Admitted") == f"Pending: {told['message']}"
    assert cluster.status["phase"] == "Queued"


def test_a_queue_that_does_not_answer_is_named() -> None:
    """No Workload yet: perhaps no Kueue, or no such queue."""
    cluster = waiting(spec={"queue": {"localQueue": "team"}})
    assert "queue team" in cluster.message("Admitted")


def test_the_scheduler_is_quoted() -> None:
    """The first pod without a node, and how many have one."""
    blocked = pod(
        1, phase="Pending", scheduled=False, unschedulable="0/3 nodes are available: 3 Insufficient google.com/tpu"
    )
    cluster = waiting(pod(0, phase="Pending"), blocked)
    assert cluster.condition("Provisioned") == ("False", "Unschedulable")
    assert cluster.message("Provisioned") == (
        "1 of 2 pods have a node; demo-slice-0-1-0: 0/3 nodes are available: 3 Insufficient google.com/tpu"
    )


def test_the_autoscaler_is_quoted() -> None:
    """What it says of a pod stands behind what the scheduler says."""
    blocked = pod(0, phase="Pending", scheduled=False, unschedulable="0/3 nodes are available")
    cluster = waiting(blocked, notes=("NotTriggerScaleUp: pod didn't trigger scale-up: 1 max node group size reached",))
    assert cluster.message("Provisioned").endswith("1 max node group size reached")


def test_missing_slices_are_named() -> None:
    """With several slices: which are not whole."""
    tpu = {"accelerator": "tpu-v6e-slice", "topology": "4x4", "slices": 2}
    placed = [pod(host, slice_index=0) for host in range(4)] + [pod(0, slice_index=1)]
    cluster = Cluster(job_of(tpu=tpu, cpu=None))
    cluster.settle()
    cluster.pods = placed
    cluster.settle()
    assert cluster.message("Provisioned") == "5 of 8 pods have a node (slice 1: 1 of 4)"


def test_an_image_that_cannot_be_pulled_is_named() -> None:
    """The kubelet's reason and message, on the condition Running."""
    cluster = waiting(pod(0), pod(1, phase="Pending", waiting='ImagePullBackOff: Back-off pulling image "no/such"'))
    assert cluster.condition("Provisioned")[0] == "True"
    assert cluster.condition("Running") == ("False", "ContainersWaiting")
    assert (
        cluster.message("Running")
        == '1 of 2 pods run; demo-slice-0-1-0: ImagePullBackOff: Back-off pulling image "no/such"'
    )


def test_a_volume_that_cannot_be_mounted_is_named() -> None:
    """Only events tell of it."""
    cluster = waiting(pod(0), pod(1, phase="Pending"), notes=('FailedMount: configmap "code" not found',))
    assert cluster.condition("Running") == ("False", "ContainersWaiting")
    assert cluster.message("Running") == '1 of 2 pods run; FailedMount: configmap "code" not found'


def test_a_line_is_one_line() -> None:
    """Whatever others say is folded and cut."""
    long = "0/3 nodes\nare  available " * 200
    cluster = waiting(pod(0, phase="Pending", scheduled=False, unschedulable=long))
    assert "\n" not in cluster.message("Provisioned")
    assert len(cluster.message("Provisioned")) <= 1024
