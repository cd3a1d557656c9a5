"""Quota for a test: a ClusterQueue of its own with CPUs, and the LocalQueue `queue` of a namespace that leads to it."""

from typing import Any

import yaml

from tests.controlplane.world import World

API_VERSION = "kueue.x-k8s.io/v1beta2"
QUEUE = "queue"


def give_quota(world: World, namespace: str, cpus: int) -> None:
    """The ClusterQueue has the namespace's name. Memory is plenty, other resources are not counted.

    Applied by the server, as tests at once share the flavor: two clients that both find none would both create it.
    """
    resources = [{"name": "cpu", "nominalQuota": cpus}, {"name": "memory", "nominalQuota": "1Ti"}]
    flavor = {"name": "any", "resources": resources}
    spec: dict[str, Any] = {
        "namespaceSelector": {},
        "resourceGroups": [{"coveredResources": ["cpu", "memory"], "flavors": [flavor]}],
    }
    documents = [
        {"apiVersion": API_VERSION, "kind": "ResourceFlavor", "metadata": {"name": "any"}},
        {"apiVersion": API_VERSION, "kind": "ClusterQueue", "metadata": {"name": namespace}, "spec": spec},
        {
            "apiVersion": API_VERSION,
            "kind": "LocalQueue",
            "metadata": {"name": QUEUE, "namespace": namespace},
            "spec": {"clusterQueue": namespace},
        },
    ]
    applied = world.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(documents))
    assert applied.returncode == 0, applied.stderr


def drain(world: World, namespace: str) -> None:
    """Evict what runs, and admit nothing."""
    _stop(world, namespace, "HoldAndDrain")


def admit_again(world: World, namespace: str) -> None:
    _stop(world, namespace, "None")


def _stop(world: World, namespace: str, policy: str) -> None:
    patch = f'{{"spec": {{"stopPolicy": "{policy}"}}}}'
    patched = world.kubectl("patch", "clusterqueue.kueue.x-k8s.io", namespace, "--type=merge", f"--patch={patch}")
    assert patched.returncode == 0, patched.stderr
