"""Binding facts of the JobSet, one each: how many Jobs and pods, their names, who restarts, where they may run."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from controller.names import longest_name
from controller.render import Manifests

Render = Callable[..., Manifests]
V6E = {"accelerator": "tpu-v6e-slice", "topology": "4x4"}
ONE_HOST = {"accelerator": "tpu-v6e-slice", "topology": "2x4", "machineType": "ct6e-standard-8t"}
EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"


def _job(manifests: Manifests) -> Any:
    (replicated,) = manifests.job_set["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def _pod(manifests: Manifests) -> Any:
    return _job(manifests)["template"]["spec"]


def _tolerated(key: str) -> dict[str, str]:
    return {"key": key, "operator": "Exists", "effect": "NoSchedule"}


def test_the_kind_is_that_of_jobset_0_12(render_job: Render) -> None:
    """The only API version that JobSet serves."""
    job_set = render_job().job_set
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")


@pytest.mark.parametrize(
    ("tpu", "slices", "hosts"),
    [
        (ONE_HOST, 1, 1),
        (V6E, 1, 4),
        (V6E | {"slices": 2}, 2, 4),
        ({"accelerator": "tpu-v5-lite-podslice", "topology": "4x8"}, 1, 8),
        ({"accelerator": "tpu-v5p-slice", "topology": "2x2x2"}, 1, 2),
        ({"accelerator": "tpu-v4-podslice", "topology": "2x2x4"}, 1, 4),
        ({"accelerator": "tpu7x", "topology": "2x2x1"}, 1, 1),
    ],
)
def test_a_job_per_slice_and_a_pod_per_host(tpu: dict[str, Any], slices: int, hosts: int, render_job: Render) -> None:
    """The replicated job `slice` has one Job a slice, and each runs as many pods at once as the slice has hosts."""
    manifests = render_job({"tpu": tpu})
    (replicated,) = manifests.job_set["spec"]["replicatedJobs"]
    assert (replicated["name"], replicated["replicas"]) == ("slice", slices)
    assert (_job(manifests)["parallelism"], _job(manifests)["completions"]) == (hosts, hosts)


def test_pods_are_indexed(render_job: Render) -> None:
    """Completion mode Indexed gives each host its index and its DNS name."""
    assert _job(render_job())["completionMode"] == "Indexed"


def test_a_failed_pod_fails_its_job_at_once(render_job: Render) -> None:
    """No pod is replaced in place: backoffLimit 0 and restartPolicy Never leave restarting to the JobSet."""
    manifests = render_job()
    assert (_job(manifests)["backoffLimit"], _pod(manifests)["restartPolicy"]) == (0, "Never")


def test_fatal_exit_codes_fail_the_job_by_policy(render_job: Render) -> None:
    """Exactly the codes that no restart can heal, of the container trainer, fail the Job by podFailurePolicy."""
    assert _job(render_job())["podFailurePolicy"] == {
        "rules": [
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": "trainer", "operator": "In", "values": [2, 3, 4, 5, 7]},
            }
        ]
    }


def test_a_fatal_failure_ends_the_jobset(render_job: Render) -> None:
    """A Job that failed by podFailurePolicy fails the JobSet; every other failure restarts it within the budget."""
    policy = render_job().job_set["spec"]["failurePolicy"]
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_restarts_and_disruptions_share_the_jobsets_budget(render_job: Render) -> None:
    """The JobSet has the sum of both budgets: the controller tells them apart and ends the job at either."""
    manifests = render_job({"restart": {"maxRestarts": 2, "maxDisruptions": 5}})
    assert manifests.job_set["spec"]["failurePolicy"]["maxRestarts"] == 7
    assert render_job().job_set["spec"]["failurePolicy"]["maxRestarts"] == 103


def test_no_attempt_meets_the_pods_of_the_one_before(render_job: Render) -> None:
    """BlockingRecreate waits until every old Job is gone before the first new one is made."""
    assert render_job().job_set["spec"]["failurePolicy"]["restartStrategy"] == "BlockingRecreate"


def test_all_slices_must_succeed(render_job: Render) -> None:
    """The JobSet is done when every Job is."""
    assert render_job().job_set["spec"]["successPolicy"] == {"operator": "All"}


def test_workers_are_in_dns_before_they_are_ready(render_job: Render) -> None:
    """The headless Service publishes not-ready addresses, or the workers could never meet."""
    network = render_job().job_set["spec"]["network"]
    assert network["publishNotReadyAddresses"] is True
    assert network["enableDNSHostnames"] is True


def test_the_subdomain_is_short_and_the_jobs_own(render_job: Render) -> None:
    """Two jobs never share a Service, however long their common beginning; the same job always has the same."""
    one, same, other = (
        render_job(name=name).job_set["spec"]["network"]["subdomain"] for name in ("a" * 30, "a" * 30, "a" * 31)
    )
    assert one == same != other
    assert re.fullmatch(r"g-[0-9a-f]{8}", one)


def test_the_coordinator_is_pod_0_of_job_0(render_job: Render) -> None:
    """JobSet labels every pod with the host of process 0."""
    coordinator = render_job().job_set["spec"]["coordinator"]
    assert coordinator == {"replicatedJob": "slice", "jobIndex": 0, "podIndex": 0}


@pytest.mark.parametrize(
    ("devices", "last_job", "last_pod"),
    [
        ({"tpu": ONE_HOST}, 0, 0),
        ({"tpu": {"accelerator": "tpu-v5-lite-podslice", "topology": "16x16", "slices": 12}}, 11, 63),
        ({"cpu": {"hosts": 1000, "devicesPerHost": 1}}, 0, 999),
    ],
)
def test_the_longest_name_fits(devices: dict[str, Any], last_job: int, last_pod: int, render_job: Render) -> None:
    """With the longest name that is allowed, the last pod's name and the coordinator label are valid labels of 63."""
    name = "n" * longest_name(last_job + 1, last_pod + 1)
    manifests = render_job(devices, name=name)
    subdomain = manifests.job_set["spec"]["network"]["subdomain"]
    pod, label = f"{name}-slice-{last_job}-{last_pod}-abcde", f"{name}-slice-0-0.{subdomain}"
    assert max(len(pod), len(label)) == 63


def test_a_multi_host_slice_has_its_node_pool_alone(render_job: Render) -> None:
    """Exclusive topology by node pool keeps a slice's pods in one pool and other jobs out of it."""
    assert render_job().job_set["metadata"]["annotations"] == {EXCLUSIVE: "cloud.google.com/gke-nodepool"}


def test_a_one_host_slice_leaves_its_node_pool_to_others(render_job: Render) -> None:
    """A pool of one-host slices holds many slices: exclusiveness would let one job lock them all."""
    assert "annotations" not in render_job({"tpu": ONE_HOST}).job_set["metadata"]


def test_placement_none_asks_for_no_pool(render_job: Render) -> None:
    """Where Kueue or a placement policy places, JobSet does not."""
    assert "annotations" not in render_job({"tpu": V6E | {"placement": "None"}}).job_set["metadata"]


def test_selectors_name_accelerator_and_topology(render_job: Render) -> None:
    """On-demand capacity needs the two TPU labels and nothing else."""
    assert _pod(render_job())["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }


def test_the_tpu_taint_is_tolerated(render_job: Render) -> None:
    """TPU nodes are tainted google.com/tpu=present:NoSchedule."""
    assert _pod(render_job())["tolerations"] == [{"key": "google.com/tpu", "operator": "Exists"}]


def test_spot_is_selected_and_tolerated(render_job: Render) -> None:
    """Spot nodes have a label and may have a taint of the same key."""
    pod = _pod(render_job({"tpu": V6E | {"capacity": {"type": "Spot"}}}))
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    spot = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    assert spot in pod["tolerations"]


@pytest.mark.parametrize(
    ("reservation", "labels"),
    [
        ("mine", {"name": "mine"}),
        ("projects/p/reservations/r", {"project": "p", "name": "r"}),
        ("projects/p/reservations/r/reservationBlocks/b", {"project": "p", "name": "r", "blocks": "b"}),
        (
            "projects/p/reservations/r/reservationBlocks/b/reservationSubBlocks/s",
            {"project": "p", "name": "r", "blocks": "b", "subblocks": "s"},
        ),
    ],
)
def test_a_reservation_is_selected_part_by_part(reservation: str, labels: dict[str, str], render_job: Render) -> None:
    """A selector's value cannot hold a slash, so a shared reservation's path is split over its labels."""
    manifests = render_job({"tpu": V6E | {"capacity": {"type": "Reservation", "reservation": reservation}}})
    selector = _pod(manifests)["nodeSelector"]
    found = {key: value for key, value in selector.items() if "reservation" in key}
    assert found == {f"cloud.google.com/reservation-{part}": value for part, value in labels.items()}


def test_flex_start_without_a_queue(render_job: Render) -> None:
    """Plain flex-start has its own label and taint, and asks Kueue for nothing."""
    manifests = render_job({"tpu": V6E | {"capacity": {"type": "FlexStart"}}})
    assert _pod(manifests)["nodeSelector"]["cloud.google.com/gke-flex-start"] == "true"
    assert _tolerated("cloud.google.com/gke-flex-start") in _pod(manifests)["tolerations"]
    assert "cloud.google.com/gke-queued" not in _pod(manifests)["nodeSelector"]
    assert list(manifests.job_set["metadata"]["annotations"]) == [EXCLUSIVE]


@pytest.mark.parametrize(("lifecycle", "seconds"), [({"activeDeadlineSeconds": 7200}, "7200"), ({}, "604800")])
def test_flex_start_through_a_queue(lifecycle: dict[str, int], seconds: str, render_job: Render) -> None:
    """With Kueue the nodes are those of a ProvisioningRequest, granted for the job's deadline or a week."""
    capacity = {"capacity": {"type": "FlexStart"}}
    manifests = render_job({"tpu": V6E | capacity, "queue": {"localQueue": "q"}, "lifecycle": lifecycle})
    assert _pod(manifests)["nodeSelector"]["cloud.google.com/gke-queued"] == "true"
    assert "cloud.google.com/gke-flex-start" not in _pod(manifests)["nodeSelector"]
    assert _tolerated("cloud.google.com/gke-queued") in _pod(manifests)["tolerations"]
    annotations = manifests.job_set["metadata"]["annotations"]
    assert annotations["provreq.kueue.x-k8s.io/maxRunDurationSeconds"] == seconds


def test_a_queue_is_a_label_of_the_jobset_which_waits_suspended(render_job: Render) -> None:
    """Kueue reads name and priority from the JobSet's labels and unsuspends it; the pods carry neither."""
    manifests = render_job({"queue": {"localQueue": "team-a", "workloadPriorityClass": "high"}})
    labels = manifests.job_set["metadata"]["labels"]
    assert (labels["kueue.x-k8s.io/queue-name"], labels["kueue.x-k8s.io/priority-class"]) == ("team-a", "high")
    assert manifests.job_set["spec"]["suspend"] is True
    assert not [key for key in _job(manifests)["template"]["metadata"]["labels"] if "kueue" in key]


def test_without_a_queue_nothing_speaks_of_suspension(render_job: Render) -> None:
    """`spec.suspend` is absent, so that no apply ever takes it from Kueue, and no queue label is there."""
    manifests = render_job()
    assert "suspend" not in manifests.job_set["spec"]
    assert not [key for key in manifests.job_set["metadata"]["labels"] if "kueue" in key]


def test_the_jobset_is_never_deleted_behind_our_back(render_job: Render) -> None:
    """No ttlSecondsAfterFinished: a JobSet that vanishes would look like a job that never ran."""
    manifests = render_job({"lifecycle": {"ttlSecondsAfterFinished": 60}})
    assert "ttlSecondsAfterFinished" not in manifests.job_set["spec"]


def test_cpu_jobs_run_on_any_node(render_job: Render) -> None:
    """Without TPUs there is no selector, no toleration and no exclusive pool."""
    manifests = render_job({"cpu": {"hosts": 2, "devicesPerHost": 4}})
    assert not {"nodeSelector", "tolerations"} & _pod(manifests).keys()
    assert "annotations" not in manifests.job_set["metadata"]
    assert (_job(manifests)["completions"], manifests.job_set["spec"]["replicatedJobs"][0]["replicas"]) == (2, 1)
