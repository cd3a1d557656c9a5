"""Why a job does not run yet stands on it in one line, in the words of who holds it up; mended, it goes on."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from controller.cluster.resources import CONFIG_MAPS, EVENTS
from controller.runtime.client import Api, Resource
from tests.controlplane.operating import SCRIPT, Operating

NODES = Resource("", "v1", "nodes", "Node", False)
SECRETS = Resource("", "v1", "secrets", "Secret")


def wait_told(
    operating: Operating, name: str, *words: str, kind: str = "Running", reason: str = "ContainersWaiting"
) -> None:
    """Until the condition is False for this reason and says all of this, in one line."""

    def told() -> bool:
        message = operating.message(name, kind)
        return operating.condition(name, kind) == ("False", reason) and all(word in message for word in words)

    operating.wait(told, f"{' and '.join(words)} on {name}")
    assert "\n" not in operating.message(name, kind)


def test_an_image_that_cannot_be_pulled(operating: Operating) -> None:
    """The registry's words are on the job, and in an event; nothing is restarted for it."""
    operating.start()
    image = "missing.test/trainer:1"
    operating.apply("pulls", image=image)
    wait_told(
        operating, "pulls", "0 of 1 pods run; pulls-slice-0-0-", f'ImagePullBackOff: Back-off pulling image "{image}"'
    )
    assert "not found" in operating.message("pulls", "Running")
    assert operating.condition("pulls", "Provisioned") == ("True", "Provisioned")
    assert operating.status("pulls")["phase"] == "Starting"
    operating.wait(lambda: "ContainersWaiting" in operating.events("pulls"), "its event")
    assert operating.attempts("pulls") == []


def test_what_a_pod_mounts_or_reads_is_not_there(operating: Operating) -> None:
    """The kubelet's event or state names the object; made later, it is taken, and the job runs to its end."""
    operating.start()
    token = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "it"}}}
    operating.apply("mounts", code={"configMap": "later"})
    operating.apply("reads", env=[{"name": "PLAN", "value": "[]"}, token])
    wait_told(operating, "reads", 'CreateContainerConfigError: secrets "token" not found')
    wait_told(
        operating, "mounts", 'FailedMount: MountVolume.SetUp failed for volume "code" : configmaps "later" not found'
    )
    script = {"metadata": {"name": "later"}, "data": {"trainer.py": SCRIPT.read_text()}}
    operating.api.create(CONFIG_MAPS, script, operating.namespace)
    operating.api.create(SECRETS, {"metadata": {"name": "token"}, "stringData": {"it": "x"}}, operating.namespace)
    for name in ("mounts", "reads"):
        operating.wait_phase(name, "Succeeded")
        assert operating.attempts(name) == []


@pytest.fixture
def slice_of_two(api: Api) -> Iterator[None]:
    """A node pool with the two hosts of one v5p slice, which no kubelet runs."""
    names = [f"v5p-host-{host}" for host in range(2)]
    for name in names:
        make_node(api, name)
    yield
    for name in names:
        api.delete(NODES, name, propagation="Background")


def make_node(api: Api, name: str) -> None:
    labels = {
        "kubernetes.io/hostname": name,
        "cloud.google.com/gke-nodepool": "one-slice",
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "2x2x2",
    }
    api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
    there: dict[str, Any] = {"cpu": "208", "memory": "448Gi", "pods": "100", "google.com/tpu": "4"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"capacity": there, "allocatable": there, "conditions": [ready]}
    api.patch(NODES, name, None, {"status": status}, subresource="status")
    api.patch(NODES, name, None, {"spec": {"taints": None}})  # put there at admission; its controller does not run here


def test_a_slice_that_is_missing(operating: Operating, slice_of_two: None) -> None:
    """Of two slices one has its node pool: the job names the other, with the scheduler's words."""
    operating.start()
    tpu = {"accelerator": "tpu-v5p-slice", "topology": "2x2x2", "slices": 2}
    operating.apply("halved", cpu=None, tpu=tpu)
    wait_told(
        operating,
        "halved",
        "2 of 4 pods have a node (slice ",
        ": 0 of 2); halved-slice-",
        "nodes are available",
        kind="Provisioned",
        reason="Unschedulable",
    )
    told = operating.world.kubectl("-n", operating.namespace, "get", "grpojob", "halved", "-o", "json").stdout
    assert json.loads(told)["status"]["phase"] == "Starting"


def test_what_the_autoscaler_says_of_a_pod(operating: Operating) -> None:
    """No node fits: the scheduler's words, and behind them those of the autoscaler's newest event."""
    operating.start()
    operating.apply("scales", nodeSelector={"test.example/no-such": "node"})
    wait_told(operating, "scales", "node affinity/selector", kind="Provisioned", reason="Unschedulable")
    (pod,) = operating.pods("scales")
    about = {key: pod["metadata"][key] for key in ("name", "namespace", "uid")}
    said = "pod didn't trigger scale-up: 1 node(s) didn't match Pod's node affinity/selector"
    event = {
        "metadata": {"generateName": "scales.", "namespace": operating.namespace},
        "involvedObject": {"kind": "Pod", "apiVersion": "v1", **about},
        "type": "Normal",
        "reason": "NotTriggerScaleUp",
        "message": said,
        "source": {"component": "cluster-autoscaler"},
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    operating.api.create(EVENTS, event, operating.namespace)
    wait_told(operating, "scales", f"; NotTriggerScaleUp: {said}", kind="Provisioned", reason="Unschedulable")
