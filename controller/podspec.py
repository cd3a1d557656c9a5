"""The pod's half of station 3: what every worker's pod template holds, as values for `templates/jobset.yaml.j2`.

In: a resolved job. Out: labels, scheduling, security, environment, mounts. User's settings come second to ours, where
the two could meet; `resolve` has refused those that collide. It knows no JobSet and no queue's labels.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from controller import names
from controller.grpojob import GRPOJob, TpuSpec
from controller.resolve import Resolved
from controller.settings import Settings
from controller.tpu import TpuSlice
from trainer.contract import process, report

ACCELERATOR = "cloud.google.com/gke-tpu-accelerator"
TOPOLOGY = "cloud.google.com/gke-tpu-topology"
TPU = "google.com/tpu"
SPOT = "cloud.google.com/gke-spot"
FLEX_START = "cloud.google.com/gke-flex-start"
QUEUED = "cloud.google.com/gke-queued"
RESERVATION_NAME = "cloud.google.com/reservation-name"
RESERVATION_PARTS = {
    "projects": "cloud.google.com/reservation-project",
    "reservations": RESERVATION_NAME,
    "reservationBlocks": "cloud.google.com/reservation-blocks",
    "reservationSubBlocks": "cloud.google.com/reservation-subblocks",
}
"""A shared reservation's path, part by part: a node selector's value cannot hold a slash."""

TPU_PORTS = {"tpu-runtime": 8471, "megascale": 8080, "tpu-metrics": 8431}
COORDINATOR_PORT_NAME = "jax-coordinator"

RUN_CONFIG = f"{names.RUN_CONFIG_FOLDER}/{names.RUN_CONFIG_KEY}"
TERMINATION_LOG = "/dev/termination-log"
MODEL_CACHE = "/cache/huggingface"
SCRATCH = "/tmp"  # noqa: S108 - a volume of the pod's own

RUN_CONFIG_VOLUME = "run-config"
CODE_VOLUME = "code"
PROGRESS_VOLUME = "progress"
TOKEN_SECONDS = 3600
"""A kubelet renews it long before."""
WRITABLE_FOLDERS = {
    "workspace": names.WORKING_FOLDER,
    "model-cache": MODEL_CACHE,
    "scratch": SCRATCH,
    "shared-memory": "/dev/shm",  # noqa: S108 - a volume of the pod's own
}
"""Volumes for all that a process writes: the root file system is read-only."""

RESTRICTED_USER = 65532

JOB_INDEX = "metadata.labels['jobset.sigs.k8s.io/job-index']"
COMPLETION_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
RESTART_ATTEMPT = "metadata.annotations['jobset.sigs.k8s.io/restart-attempt']"


def own_labels(job: GRPOJob, run_id: str) -> dict[str, str]:
    """Labels of everything that is made of one job."""
    return {
        "app.kubernetes.io/name": "grpo-trainer",
        "app.kubernetes.io/managed-by": "grpo-operator",
        names.LABEL_JOB: job.metadata.name,
        names.LABEL_RUN_ID: run_id,
    }


def pod_values(resolved: Resolved, settings: Settings, run_id: str, config_map: str) -> dict[str, Any]:
    """Values of the template's pod half; `config_map` is the name of the ConfigMap that holds run.json."""
    spec = resolved.job.spec
    security_of_pod, security_of_container = _security(resolved.job)
    return {
        # A mesh's sidecar would stand between the workers and outlive them. New Istio reads the label, old the other.
        "pod_labels": spec.pod_labels | own_labels(resolved.job, run_id) | {"sidecar.istio.io/inject": "false"},
        "pod_annotations": spec.pod_annotations | {"sidecar.istio.io/inject": "false"},
        "grace_seconds": spec.lifecycle.termination_grace_period_seconds,
        "pod": _scheduling(resolved) | _identity(resolved.job),
        "pod_security": security_of_pod,
        "container_options": _container_options(resolved.job),
        "run_config": RUN_CONFIG,
        "working_folder": names.WORKING_FOLDER,
        "termination_log": TERMINATION_LOG,
        "env": _environment(resolved, settings, run_id),
        "ports": _ports(resolved),
        "resources": _resources(resolved),
        "container_security": security_of_container,
        "mounts": _mounts(resolved.job, settings),
        "volumes": _volumes(resolved.job, settings, config_map),
    }


def coordinator(job: GRPOJob) -> str:
    """DNS name of pod 0 of slice 0, where process 0 listens; also the value of JobSet's coordinator label."""
    return f"{job.metadata.name}-{names.REPLICATED_JOB}-0-0.{names.subdomain(job.metadata.name)}"


def _scheduling(resolved: Resolved) -> dict[str, Any]:
    spec = resolved.job.spec
    selector, tolerations = dict(spec.node_selector), _plain(spec.tolerations)
    if isinstance(resolved.devices, TpuSlice) and spec.tpu is not None:
        selector |= {ACCELERATOR: resolved.devices.accelerator, TOPOLOGY: resolved.devices.topology}
        selector |= _capacity_selector(spec.tpu, queued=spec.queue is not None)
        tolerations += [{"key": TPU, "operator": "Exists"}, *_capacity_tolerations(spec.tpu, spec.queue is not None)]
    scheduling: dict[str, Any] = {}
    if selector:
        scheduling["nodeSelector"] = selector
    if tolerations:
        scheduling["tolerations"] = tolerations
    if spec.priority_class_name:
        scheduling["priorityClassName"] = spec.priority_class_name
    if spec.tpu is not None and spec.tpu.host_network:
        scheduling |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return scheduling


def _capacity_selector(tpu: TpuSpec, queued: bool) -> dict[str, str]:
    match tpu.capacity.type:
        case "Spot":
            return {SPOT: "true"}
        case "FlexStart":
            return {QUEUED if queued else FLEX_START: "true"}
        case "Reservation":
            return _reservation(tpu.capacity.reservation or "")
        case "OnDemand":
            return {}


def _reservation(reservation: str) -> dict[str, str]:
    """`name`, or `projects/P/reservations/R` with blocks and sub-blocks below it."""
    parts = reservation.split("/")
    if len(parts) == 1:
        return {RESERVATION_NAME: reservation}
    return {RESERVATION_PARTS[kind]: value for kind, value in zip(parts[::2], parts[1::2], strict=True)}


def _capacity_tolerations(tpu: TpuSpec, queued: bool) -> list[dict[str, Any]]:
    match tpu.capacity.type:
        case "Spot":
            return [{"key": SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"}]
        case "FlexStart":
            return [{"key": QUEUED if queued else FLEX_START, "operator": "Exists", "effect": "NoSchedule"}]
        case _:
            return []


def _identity(job: GRPOJob) -> dict[str, Any]:
    identity: dict[str, Any] = {}
    if job.spec.service_account_name:
        identity["serviceAccountName"] = job.spec.service_account_name
    if job.spec.image_pull_secrets:
        identity["imagePullSecrets"] = _plain(job.spec.image_pull_secrets)
    return identity


def _container_options(job: GRPOJob) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if job.spec.image_pull_policy:
        options["imagePullPolicy"] = job.spec.image_pull_policy
    if job.spec.env_from:
        options["envFrom"] = _plain(job.spec.env_from)
    return options


def _security(job: GRPOJob) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's and the container's security context: unprivileged, and non-root unless the profile is Root."""
    asked = job.spec.security_context
    pod: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    container: dict[str, Any] = {"privileged": False, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    if asked.profile == "Root":
        pod |= {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0}
        return pod | ({"fsGroup": asked.fs_group} if asked.fs_group else {}), container
    user = asked.run_as_user or RESTRICTED_USER
    group = asked.run_as_group or user
    pod |= {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": group, "fsGroup": asked.fs_group or group}
    return pod, container | {"capabilities": {"drop": ["ALL"]}}


def _environment(resolved: Resolved, settings: Settings, run_id: str) -> list[dict[str, Any]]:
    """Ours first, so that a user's value may refer to them; a user may set HF_HOME, HOME and TMPDIR otherwise."""
    spec, host = resolved.job.spec, coordinator(resolved.job)
    ours = [
        _value(process.ENV_RUN_CONFIG, RUN_CONFIG),
        _value(process.ENV_RUN_ID, run_id),
        _field(process.ENV_SLICE_INDEX, JOB_INDEX),
        _field(process.ENV_HOST_INDEX, COMPLETION_INDEX),
        _field(process.ENV_ATTEMPT, RESTART_ATTEMPT),
        _value(process.ENV_COORDINATOR, f"{host}:{process.COORDINATOR_PORT}"),
        _value(process.ENV_TERMINATION_LOG, TERMINATION_LOG),
        _value("JAX_PLATFORMS", "tpu,cpu" if isinstance(resolved.devices, TpuSlice) else "cpu"),
        *_megascale(resolved.slices, host),
        *([_value("PYTHONPATH", names.CODE_FOLDER)] if spec.code else []),
        *_progress_environment(settings),
        _value("PYTHONUNBUFFERED", "1"),
        _value("HF_HOME", MODEL_CACHE),
        _value("HOME", SCRATCH),
        _value("TMPDIR", SCRATCH),
    ]
    users = _plain(spec.env)
    named = {variable["name"] for variable in users}
    return [variable for variable in ours if variable["name"] not in named] + users


def _megascale(slices: int, coordinator_host: str) -> list[dict[str, Any]]:
    """Set by us in every case: GKE's own values can be stale after a preemption, and where one is absent JAX asks the
    metadata server for it, minutes long (https://github.com/ray-project/ray/pull/62893, jax cloud_tpu_cluster.py).
    """
    if slices == 1:
        return [_value(f"MEGASCALE_{name}", "") for name in ("NUM_SLICES", "SLICE_ID", "COORDINATOR_ADDRESS")]
    return [
        _value("MEGASCALE_NUM_SLICES", str(slices)),
        _field("MEGASCALE_SLICE_ID", JOB_INDEX),
        _value("MEGASCALE_COORDINATOR_ADDRESS", coordinator_host),
    ]


def _progress_environment(settings: Settings) -> list[dict[str, Any]]:
    if settings.progress_url is None:
        return []
    return [
        _value(report.ENV_PROGRESS_URL, settings.progress_url),
        _value(report.ENV_PROGRESS_FOLDER, names.PROGRESS_FOLDER),
    ]


def _progress_volume() -> dict[str, Any]:
    """A token that no API server takes, and the authority, which may come later: a pod starts without it."""
    token = {"audience": report.AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": report.TOKEN_FILE}
    key = report.CA_FILE
    authority = {"name": names.AUTHORITY_CONFIG_MAP, "items": [{"key": key, "path": key}], "optional": True}
    return {
        "name": PROGRESS_VOLUME,
        "projected": {"sources": [{"serviceAccountToken": token}, {"configMap": authority}]},
    }


def _value(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "value": value}


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _ports(resolved: Resolved) -> dict[str, int]:
    ports = TPU_PORTS if isinstance(resolved.devices, TpuSlice) else {}
    return ports | {COORDINATOR_PORT_NAME: process.COORDINATOR_PORT}


def _resources(resolved: Resolved) -> dict[str, Any]:
    """All chips of the host, as request and limit; cpu and memory as requests only, unless the user limits them."""
    devices, asked = resolved.devices, resolved.job.spec.resources
    limits = dict(asked.limits or {})
    requests = {"cpu": devices.cpu, "memory": devices.memory}
    # Where a user gives a limit alone, Kubernetes takes it as the request; ours might exceed it.
    ours = {name: amount for name, amount in requests.items() if amount is not None and name not in limits}
    chips = {TPU: str(devices.chips_per_host)} if isinstance(devices, TpuSlice) else {}
    resources = {"requests": ours | (asked.requests or {}) | chips}
    return resources | ({"limits": limits | chips} if limits | chips else {})


def _mounts(job: GRPOJob, settings: Settings) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": RUN_CONFIG_VOLUME, "mountPath": names.RUN_CONFIG_FOLDER, "readOnly": True},
    ]
    if job.spec.code:
        mounts.append({"name": CODE_VOLUME, "mountPath": names.CODE_FOLDER, "readOnly": True})
    if settings.progress_url is not None:
        mounts.append({"name": PROGRESS_VOLUME, "mountPath": names.PROGRESS_FOLDER, "readOnly": True})
    mounts += [{"name": name, "mountPath": path} for name, path in WRITABLE_FOLDERS.items()]
    return mounts + _plain(job.spec.volume_mounts)


def _volumes(job: GRPOJob, settings: Settings, config_map: str) -> list[dict[str, Any]]:
    key = names.RUN_CONFIG_KEY
    volumes: list[dict[str, Any]] = [
        {"name": RUN_CONFIG_VOLUME, "configMap": {"name": config_map, "items": [{"key": key, "path": key}]}},
    ]
    if job.spec.code and job.spec.code.config_map:
        volumes.append({"name": CODE_VOLUME, "configMap": {"name": job.spec.code.config_map}})
    if settings.progress_url is not None:
        volumes.append(_progress_volume())
    for name, path in WRITABLE_FOLDERS.items():
        volumes.append({"name": name, "emptyDir": {"medium": "Memory"} if path == "/dev/shm" else {}})  # noqa: S108
    return volumes + _plain(job.spec.volumes)


def _plain(sections: Sequence[BaseModel]) -> list[dict[str, Any]]:
    """Kubernetes' own spelling, without what the user left out."""
    return [section.model_dump(mode="json", by_alias=True, exclude_none=True) for section in sections]
