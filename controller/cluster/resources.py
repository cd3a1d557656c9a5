"""What the API server calls the kinds that the controller reads and writes."""

from controller import names
from controller.crd import PLURAL
from controller.runtime.client import Resource

_VERSION = names.API_VERSION.partition("/")[2]

GRPOJOBS = Resource(names.API_GROUP, _VERSION, PLURAL, names.KIND)
JOB_SETS = Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
PODS = Resource("", "v1", "pods", "Pod")
EVENTS = Resource("", "v1", "events", "Event")
DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)


def workloads(version: str) -> Resource:
    """Kueue's, of the version that it serves."""
    return Resource("kueue.x-k8s.io", version, "workloads", "Workload")
