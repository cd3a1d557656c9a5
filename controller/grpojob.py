"""Station 1, read: text in, GRPOJobs out, with every key, type and range checked and nothing raised.

`spec` is the runner's tree (trainer.contract.runner, camelCase) and the cluster's part, typed here.
It knows no slice, no batch arithmetic and no cluster: what a value means together with others is station 2.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from controller.podtypes import (
    MAX_ITEMS,
    AnnotationValue,
    DnsLabel,
    DnsName,
    EnvFrom,
    EnvVar,
    LabelKey,
    LabelValue,
    PullSecret,
    Resources,
    SecurityContext,
    Toleration,
    Volume,
    VolumeMount,
)
from trainer.contract.runner import Section, Text
from trainer.contract.violations import Violation

if TYPE_CHECKING:
    from trainer.contract.runner import ParsedRunner

Seconds = Annotated[int, Field(gt=0, le=31_536_000)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[dict[LabelKey, AnnotationValue], Field(max_length=64)]


class CapacitySpec(Section):
    type: Literal["OnDemand", "Spot", "Reservation", "FlexStart"] = "OnDemand"
    reservation: Text | None = Field(None, description="name of the reservation, with type Reservation only")


class TpuSpec(Section):
    """Slices of GKE TPU node pools. `machine_type` only where accelerator and topology leave a choice."""

    accelerator: Text = Field(description="value of the node label cloud.google.com/gke-tpu-accelerator")
    topology: Text = Field(description="chips along each axis, such as 4x4 or 2x2x2")
    machine_type: Text | None = Field(None, description="only where accelerator and topology leave a choice")
    slices: Annotated[int, Field(gt=0, le=256)] = 1
    capacity: CapacitySpec = CapacitySpec()
    host_network: bool = False
    placement: Literal["ExclusiveNodePool", "None"] = "ExclusiveNodePool"


class CpuSpec(Section):
    """Trains on any cluster, without a TPU: pods that each hold `devices_per_host` JAX CPU devices."""

    hosts: Annotated[int, Field(gt=0, le=1024)] = 1
    devices_per_host: Annotated[int, Field(gt=0, le=1024)] = 1


class CodeSpec(Section):
    """User's Python, mounted read-only and put on PYTHONPATH of every process. Exactly one of the two sources."""

    config_map: DnsName | None = Field(None, description="a ConfigMap with one key per Python file")
    uri: Text | None = Field(None, description="an archive; with sha256")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class QueueSpec(Section):
    local_queue: DnsName
    workload_priority_class: DnsName | None = None


class RestartSpec(Section):
    """Failures of the run's own, and disruptions from outside, are counted apart."""

    max_restarts: Annotated[int, Field(ge=0, le=1000)] = 3
    max_disruptions: Annotated[int, Field(ge=0, le=10_000)] = 100


class LifecycleSpec(Section):
    active_deadline_seconds: Seconds | None = None
    startup_deadline_seconds: Seconds | None = None
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=3600)] = 120


class ClusterSpec(Section):
    """The cluster's part of `spec`, in the order in which violations are reported, after the runner's tree."""

    tpu: TpuSpec | None = None
    cpu: CpuSpec | None = None
    code: CodeSpec | None = None
    image: Text | None = Field(None, description="null = the trainer image of this version")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: Annotated[tuple[PullSecret, ...], Field(max_length=16)] = ()
    env: Annotated[tuple[EnvVar, ...], Field(max_length=MAX_ITEMS)] = ()
    env_from: Annotated[tuple[EnvFrom, ...], Field(max_length=32)] = ()
    resources: Resources = Resources()
    node_selector: Labels = Field(default_factory=dict)
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    pod_labels: Labels = Field(default_factory=dict)
    pod_annotations: Annotations = Field(default_factory=dict)
    service_account_name: DnsName | None = None
    priority_class_name: DnsName | None = None
    volumes: Annotated[tuple[Volume, ...], Field(max_length=32)] = ()
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=32)] = ()
    security_context: SecurityContext = SecurityContext()
    suspend: bool = False
    queue: QueueSpec | None = None
    restart: RestartSpec = RestartSpec()
    lifecycle: LifecycleSpec = LifecycleSpec()


class Metadata(Section):
    """What the road needs of a Kubernetes object's metadata; what the API server adds is let through."""

    name: Text
    namespace: DnsLabel | None = None
    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)
    uid: Text | None = None


@dataclass(frozen=True, slots=True)
class GRPOJob:
    """One job as read. A refused key keeps its default; its dotted snake_case path is in `unknown`, so that no later
    rule draws conclusions from it. `runner` is the runner's tree, `spec` the cluster's part.
    """

    metadata: Metadata
    spec: ClusterSpec
    runner: "ParsedRunner"
    unknown: frozenset[str]
    violations: tuple[Violation, ...]
    document: dict[str, Any]
