"""Station 1, read: text in, GRPOJobs out, with every key, type and range checked and nothing raised.

`spec` is the runner's tree (trainer.contract.runner, camelCase) and the cluster's part, typed here.
It knows no slice, no batch arithmetic and no cluster: what a value means together with others is station 2.
"""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field

from controller import names
from controller.podtypes import (
    MAX_ITEMS,
    PATTERNS,
    SHA256,
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
from trainer.contract.documents import Document, load_documents
from trainer.contract.reading import Tree, known_keys, nearest_key, read_tree
from trainer.contract.runner import REASONS as RUNNER_REASONS
from trainer.contract.runner import ParsedRunner, RunnerConfig, parse_runner
from trainer.contract.section import Section, Text
from trainer.contract.violations import Spelling, Violation, shown

Model = TypeVar("Model", bound=BaseModel)
Seconds = Annotated[int, Field(gt=0, le=31_536_000)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[dict[LabelKey, AnnotationValue], Field(max_length=64)]
OwnAnnotations = Annotated[dict[LabelKey, Annotated[str, Field(max_length=262_144)]], Field(max_length=1024)]
"""Room for what kubectl keeps here: the whole job as it was applied. The API server takes 256 KiB in all."""


class CapacitySpec(Section):
    type: Literal["OnDemand", "Spot", "Reservation", "FlexStart"] = "OnDemand"
    reservation: Text | None = Field(None, description="name of the reservation, with type Reservation only")


class TpuSpec(Section):
    """Slices of GKE TPU node pools. `machine_type` only where accelerator and topology leave a choice."""

    accelerator: Text = Field(description="value of the node label cloud.google.com/gke-tpu-accelerator")
    topology: Text = Field(description="chips along each axis, such as 4x4 or 2x2x2")
    machine_type: Text | None = Field(None, description="only where accelerator and topology leave a choice")
    slices: Annotated[int, Field(gt=0, le=256)] = 1
    capacity: CapacitySpec = CapacitySpec.model_construct()
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
    sha256: Annotated[str, Field(pattern=SHA256, max_length=64)] | None = None


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
    resources: Resources = Resources.model_construct()
    node_selector: Labels = Field(default_factory=dict)
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    pod_labels: Labels = Field(default_factory=dict)
    pod_annotations: Annotations = Field(default_factory=dict)
    service_account_name: DnsName | None = None
    priority_class_name: DnsName | None = None
    volumes: Annotated[tuple[Volume, ...], Field(max_length=32)] = ()
    volume_mounts: Annotated[tuple[VolumeMount, ...], Field(max_length=32)] = ()
    security_context: SecurityContext = SecurityContext.model_construct()
    suspend: bool = False
    queue: QueueSpec | None = None
    restart: RestartSpec = RestartSpec.model_construct()
    lifecycle: LifecycleSpec = LifecycleSpec.model_construct()


class Metadata(Section):
    """What the road needs of a Kubernetes object's metadata, and what the API server adds to it."""

    name: Text
    namespace: DnsLabel | None = None
    labels: Labels = Field(default_factory=dict)
    annotations: OwnAnnotations = Field(default_factory=dict)
    uid: Text | None = None
    resource_version: Any = None
    generation: Any = None
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: Any = None
    finalizers: Any = None
    owner_references: Any = None
    managed_fields: Any = None


@dataclass(frozen=True, slots=True)
class GRPOJob:
    """One job as read. `runner` is the runner's tree, `spec` the cluster's part.

    A refused key keeps its default, or a placeholder where it has none; its dotted snake_case path is in `refused`, so
    that no later rule draws conclusions from it. `violations` are those of reading, in the order of the schema, without
    those of `runner`, which come between the metadata's and the cluster's.
    """

    metadata: Metadata
    runner: ParsedRunner
    spec: ClusterSpec
    refused: frozenset[str]
    violations: tuple[Violation, ...]
    origins: Mapping[str, str]

    def knows(self, path: str) -> bool:
        """Whether a path of the cluster's part, `tpu.topology`, was accepted, and all above it."""
        parts = path.split(".")
        return not any(".".join(parts[: depth + 1]) in self.refused for depth in range(len(parts)))

    def has_fault_below(self, path: str) -> bool:
        """Whether something below a path, `spec.volumes[0]`, was refused when it was read."""
        return any(violation.path.startswith(f"{path}.") for violation in self.violations)

    def gives(self, field: str) -> bool:
        """Whether a section of the cluster's part was written, well or not."""
        return getattr(self.spec, field) is not None or field in self.refused


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """One YAML document: a job, or why it is none; `other` is an object of another kind, which is let through.

    `body` is the job's object as it was written, with each `--set` laid over it.
    """

    index: int
    name: str | None
    job: GRPOJob | None
    other: Mapping[str, Any] | None
    violations: tuple[Violation, ...]
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Override:
    """One `--set`: a path below `spec` as the user wrote it, its keys and list indices, and the value."""

    path: str
    keys: tuple[str | int, ...]
    value: Any

    @property
    def dotted(self) -> str:
        """The path as violations tell it: `rewards[0].weight`."""
        return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys).lstrip(".")


def _respelled(text: str) -> str:
    """A sentence of the contract about the runner's keys, with their paths as a GRPOJob spells them."""
    return re.sub(r"\b[a-z]+\.[a-z_]+\b", lambda path: Spelling.GRPOJOB.path(path[0]), text)


TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")
PLACEHOLDER = "unknown"
REASONS = {
    **{Spelling.GRPOJOB.path(path): _respelled(reason) for path, reason in RUNNER_REASONS.items()},
    "metadata.generateName": "is not used: a run folder needs a name that stays; give metadata.name",
    "spec.volumes.hostPath": (
        "would tie the run to one node and open the node to it; use persistentVolumeClaim, nfs or csi"
    ),
    "spec.template": "is no key of a GRPOJob: a pod's settings are keys of spec (env, resources, volumes); move them",
    "spec.command": "is no key of a GRPOJob: the command is the trainer's own; remove it",
    "spec.args": "is no key of a GRPOJob: the arguments are the trainer's own; remove it",
    "spec.hostNetwork": "belongs to the slices; write it below spec.tpu",
}
"""Keys that one may expect here, each refused with a reason of its own."""


def read_jobs(text: str, source: str, overrides: Iterable[Override] = ()) -> list[ReadDocument]:
    """Every document of a YAML text, in order, empty ones left out. `source` names the file in errors; never raises."""
    overrides = tuple(overrides)
    documents = [
        document for document in load_documents(text, source) if document.data is not None or document.violations
    ]
    read = [_read_document(document, overrides) for document in documents]
    if all(document.other is not None for document in read):
        message = f"{source} holds no {names.KIND}; `grpoctl init` writes one"
        read.append(ReadDocument(len(read), None, None, None, (Violation("required", "", None, message),)))
    return read


def _read_document(document: Document, overrides: tuple[Override, ...]) -> ReadDocument:
    data = document.data
    if document.violations:
        return ReadDocument(document.index, None, None, None, document.violations)
    if not isinstance(data, Mapping):
        message = f"{shown(data)} must be a mapping with apiVersion, kind, metadata and spec; write `key: value` lines"
        return ReadDocument(document.index, None, None, None, (Violation("type", "", data, message),))
    name = _name_of(data)
    if _is_other(data):
        return ReadDocument(document.index, name, None, data, ())
    data, faults = _lay_over(data, overrides)
    job = read_job(data, {override.dotted: "--set" for override in overrides})
    return ReadDocument(document.index, name, replace(job, violations=(*faults, *job.violations)), None, (), data)


def _name_of(data: Mapping[Any, Any]) -> str | None:
    metadata = data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return name if isinstance(name, str) else None


def _is_other(data: Mapping[Any, Any]) -> bool:
    """An object of another API in the same file, such as the ConfigMap of `spec.code`."""
    version, kind = data.get("apiVersion"), data.get("kind")
    ours = kind == names.KIND or str(version).startswith(names.API_GROUP)
    return isinstance(version, str) and isinstance(kind, str) and not ours


def read_job(data: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> GRPOJob:
    """One GRPOJob object, as a file or the API server holds it; `origins` names what did not come from there."""
    spec = data.get("spec")
    keys = known_keys(ClusterSpec, Spelling.GRPOJOB)
    clusters, runners = {}, spec
    if isinstance(spec, Mapping):
        clusters = {key: value for key, value in spec.items() if key in keys}
        runners = {key: value for key, value in spec.items() if key not in keys}
    metadata, cluster = _read_section(Metadata, data.get("metadata")), _read_section(ClusterSpec, clusters)
    runner = parse_runner(runners, Spelling.GRPOJOB, origins, also_known=keys)
    refused = cluster.refused | {f"metadata.{path}" for path in metadata.refused}
    if spec is not None and not isinstance(spec, Mapping):
        refused |= set(ClusterSpec.model_fields)
    return GRPOJob(
        metadata=metadata.value or Metadata(name=PLACEHOLDER),
        runner=replace(runner, violations=tuple(_reasoned(violation) for violation in runner.violations)),
        spec=cluster.value or ClusterSpec(),
        refused=refused,
        violations=(
            *_read_head(data),
            *(_reasoned(_of_metadata(violation)) for violation in metadata.violations),
            *(_reasoned(violation) for violation in cluster.violations),
        ),
        origins=dict(origins or {}),
    )


def _read_head(data: Mapping[str, Any]) -> Iterator[Violation]:
    for key, expected in (("apiVersion", names.API_VERSION), ("kind", names.KIND)):
        value = data.get(key)
        if value is None:
            yield Violation("required", key, None, f"is required; write {key}: {expected}")
        elif value != expected:
            yield Violation("range", key, value, f"{shown(value)} must be {expected}; write {key}: {expected}")
    for key in data:
        if key not in TOP_LEVEL:
            near = nearest_key(str(key), TOP_LEVEL) or (f"spec.{key}" if _belongs_to_spec(key) else None)
            fix = f"did you mean {near}?" if near else f"the keys here are {', '.join(TOP_LEVEL)}"
            yield Violation("unknown-key", str(key), data[key], f"{shown(key)} is not a key of a {names.KIND}; {fix}")


def _belongs_to_spec(key: Any) -> bool:
    return any(key in known_keys(model, Spelling.GRPOJOB) for model in (RunnerConfig, ClusterSpec))


def _read_section(model: type[Model], data: Any) -> Tree[Model]:
    """As `read_tree`, with placeholders for required fields that were left out or refused: their section stays."""
    tree = read_tree(model, data, Spelling.GRPOJOB)
    if not isinstance(data, Mapping | None):
        return tree
    places = [_keys_of(violation.path) for violation in tree.violations if violation.rule != "unknown-key"]
    lost = [keys for keys in places if int not in map(type, keys) and _is_lost(tree.value, keys[:-1])]
    if not lost:
        return tree
    filled = copy.deepcopy(dict(data or {}))
    for keys in lost:
        _put(filled, keys, PLACEHOLDER)
    again = read_tree(model, filled, Spelling.GRPOJOB)
    refused = {".".join(_to_snake(str(key)) for key in keys) for keys in lost}
    return Tree(again.value, tree.refused | again.refused | refused, tree.violations)


def _is_lost(value: Any, keys: tuple[str | int, ...]) -> bool:
    """Whether the section at a path was given up because of a fault below it."""
    for key in keys:
        value = getattr(value, _to_snake(str(key)), None)
    return value is None


def _to_snake(path: str) -> str:
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda letter: f"_{letter[0].lower()}", path)


def _keys_of(path: str) -> tuple[str | int, ...]:
    """`spec.env[0].name` below spec: env, 0, name."""
    parts = re.findall(r"\[([0-9]+)\]|([^.\[\]]+)", path.removeprefix("spec."))
    return tuple(int(index) if index else key for index, key in parts)


def _of_metadata(violation: Violation) -> Violation:
    """The contract speaks of `spec`; the metadata stands beside it."""
    message = violation.message.replace("a key of spec", "a key of metadata")
    return replace(violation, path="metadata" + violation.path.removeprefix("spec"), message=message)


def _reasoned(violation: Violation) -> Violation:
    reason = REASONS.get(re.sub(r"\[\d+\]", "", violation.path))
    if reason and violation.rule == "unknown-key":
        return replace(violation, message=reason)
    for pattern, words in PATTERNS.items():
        if f"must match {pattern};" in violation.message:
            return replace(violation, message=violation.message.replace(f"must match {pattern};", f"must be {words};"))
    return violation


def _lay_over(data: Mapping[str, Any], overrides: Iterable[Override]) -> tuple[dict[str, Any], list[Violation]]:
    """The document with each `--set` laid over it, and those that found no place."""
    laid, faults = copy.deepcopy(dict(data)), []
    if laid.get("spec") is None:
        laid["spec"] = {}
    for override in overrides:
        if not _put(laid["spec"], override.keys, override.value):
            message = f"{shown(override.value)} has no place here: the file has no such list or mapping"
            path = f"spec.{override.dotted}"
            faults.append(Violation("type", path, override.value, f"{message}; set it as a whole"))
    return laid, faults


def _put(tree: Any, keys: tuple[str | int, ...], value: Any) -> bool:
    """Put a value at a path of nested mappings and lists, making mappings on the way; False where that cannot be."""
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(key, int):
            if not isinstance(tree, list) or key >= len(tree):
                return False
        elif not isinstance(tree, dict):
            return False
        elif not last and tree.get(key) is None:
            if isinstance(keys[depth + 1], int):
                return False
            tree[key] = {}
        if last:
            tree[key] = value
            return True
        tree = tree[key]
    return False
