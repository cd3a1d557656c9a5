"""The rules of a GRPOJob's pod settings: names that are the operator's own, secrets, volumes and their mounts.

In: a job as read. Out: violations. It knows the names that the renderer takes for itself, no manifest.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from controller import names
from controller.grpojob import GRPOJob
from controller.podtypes import EnvVar, Volume
from trainer.contract.violations import Violation, shown, to_camel

ENV_PREFIXES = ("GRPO_", "JAX_", "TPU_", "MEGASCALE_")
ENV_NAMES = ("PYTHONPATH", "JOB_COMPLETION_INDEX")
LABEL_PREFIXES = (
    f"{names.API_GROUP}/",
    "jobset.sigs.k8s.io/",
    "alpha.jobset.sigs.k8s.io/",
    "batch.kubernetes.io/",
    "kueue.x-k8s.io/",
    "sidecar.istio.io/inject",
    "app.kubernetes.io/name",
    "app.kubernetes.io/managed-by",
)
SELECTOR_PREFIXES = (
    "cloud.google.com/gke-tpu-",
    "cloud.google.com/gke-spot",
    "cloud.google.com/gke-provisioning",
    "cloud.google.com/gke-flex-start",
    "cloud.google.com/gke-queued",
    "cloud.google.com/reservation-",
)
CHIPS = "google.com/tpu"
VOLUME_NAMES = frozenset({"run-config", "code", "workspace", "model-cache", "scratch", "shared-memory", "progress"})
MOUNT_PATHS = frozenset({names.WORKING_FOLDER, names.PROGRESS_FOLDER, "/tmp", "/dev/shm", "/cache/huggingface"})  # noqa: S108 - the pod's own
PERSISTENT = ("persistent_volume_claim", "nfs", "csi")

SECRET_WORDS = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|APIKEY|(API|ACCESS|PRIVATE|SECRET)_KEY)($|_)", re.IGNORECASE
)
SECRET_VALUES = re.compile(r"^(hf_\w{8,}|sk-\S{8,}|gh[pousr]_\w{8,}|AKIA\w{12,}|xox[abp]-\S+|-----BEGIN )")
"""Tokens of Hugging Face, OpenAI and its like, GitHub, AWS and Slack, and PEM keys."""


def check_env(job: GRPOJob) -> Iterator[Violation]:
    """Rules reserved-env and secret-by-reference, and one value from one source for each variable."""
    for index, variable in enumerate(job.spec.env):
        path = f"spec.env[{index}]"
        if variable.name.startswith(ENV_PREFIXES) or variable.name in ENV_NAMES:
            message = f"{shown(variable.name)} is set by the operator; remove it"
            yield Violation("reserved-env", f"{path}.name", variable.name, message)
        yield from _secrets(variable, path)
        yield from _one_value(job, variable, path)
    yield from _twice("spec.env", (variable.name for variable in job.spec.env), "name")
    for index, source in enumerate(job.spec.env_from):
        yield from _one_source(job, f"spec.envFrom[{index}]", source, ("config_map_ref", "secret_ref"))


def _secrets(variable: EnvVar, path: str) -> Iterator[Violation]:
    """The value is kept out of the violation: a refusal must not carry the secret into a log."""
    value = variable.value or ""
    named = SECRET_WORDS.search(variable.name) and not value.startswith("/")
    if value and (named or SECRET_VALUES.match(value)):
        yield Violation(
            "secret-by-reference",
            f"{path}.value",
            None,
            f"{variable.name} looks like a secret, and a job can be read by many; keep it in a Secret and use "
            "valueFrom.secretKeyRef with name and key",
        )


def _one_value(job: GRPOJob, variable: EnvVar, path: str) -> Iterator[Violation]:
    if variable.value is not None and variable.value_from is not None:
        yield Violation("type", path, None, f"{variable.name} has value and valueFrom; keep one of them")
    if variable.value_from is not None:
        fields = ("secret_key_ref", "config_map_key_ref", "field_ref", "resource_field_ref")
        yield from _one_source(job, f"{path}.valueFrom", variable.value_from, fields)


def check_labels(job: GRPOJob) -> Iterator[Violation]:
    """Rule reserved-env for labels, annotations and selectors: those by which the operator and JobSet find a pod."""
    spec = job.spec
    for field, given, reserved in (
        ("nodeSelector", spec.node_selector, SELECTOR_PREFIXES),
        ("podLabels", spec.pod_labels, LABEL_PREFIXES),
        ("podAnnotations", spec.pod_annotations, LABEL_PREFIXES),
    ):
        for key in given:
            if key.startswith(reserved):
                way = "say it in spec.tpu" if reserved is SELECTOR_PREFIXES else "remove it"
                yield Violation("reserved-env", f"spec.{field}", key, f"{shown(key)} is set by the operator; {way}")


def check_resources(job: GRPOJob) -> Iterator[Violation]:
    """Rule reserved-env for chips: their number follows from the slice."""
    for field, given in (("requests", job.spec.resources.requests), ("limits", job.spec.resources.limits)):
        if CHIPS in (given or {}):
            message = f"{shown(CHIPS)} is set by the operator to the chips of one host; remove it"
            yield Violation("reserved-env", f"spec.resources.{field}", CHIPS, message)


def check_volumes(job: GRPOJob) -> Iterator[Violation]:
    """Each volume has one source and a name of its own; each mount names a volume and a place that is free."""
    for index, volume in enumerate(job.spec.volumes):
        path = f"spec.volumes[{index}]"
        if volume.name in VOLUME_NAMES:
            message = f"{shown(volume.name)} is a volume of the operator; use my-{volume.name}"
            yield Violation("reserved-env", f"{path}.name", volume.name, message)
        sources = tuple(field for field in Volume.model_fields if field != "name")
        yield from _one_source(job, path, volume, sources)
    yield from _twice("spec.volumes", (volume.name for volume in job.spec.volumes), "name")
    yield from _check_mounts(job)


def _check_mounts(job: GRPOJob) -> Iterator[Violation]:
    known = {volume.name for volume in job.spec.volumes}
    for index, mount in enumerate(job.spec.volume_mounts):
        path, place = f"spec.volumeMounts[{index}]", mount.mount_path.rstrip("/") or "/"
        if mount.name not in known and job.knows("volumes"):
            choices = f"use {' or '.join(sorted(known))}" if known else "add it to spec.volumes"
            yield Violation(
                "range", f"{path}.name", mount.name, f"{shown(mount.name)} is not among spec.volumes; {choices}"
            )
        if place in MOUNT_PATHS or place == "/" or f"{place}/".startswith(f"{names.RUN_CONFIG_FOLDER}/"):
            message = f"{shown(mount.mount_path)} is a folder of the operator; use {names.WORKING_FOLDER}/{mount.name}"
            yield Violation("reserved-env", f"{path}.mountPath", mount.mount_path, message)
    yield from _twice("spec.volumeMounts", (mount.mount_path for mount in job.spec.volume_mounts), "mountPath")


def check_security(job: GRPOJob) -> Iterator[Violation]:
    """The ids belong to the profile that is not root."""
    security = job.spec.security_context
    if security.profile == "Root" and security.run_as_user is not None:
        message = (
            f"{security.run_as_user} contradicts profile Root, whose user is 0; remove it or use profile Restricted"
        )
        yield Violation("range", "spec.securityContext.runAsUser", security.run_as_user, message)


def writable_mounts(job: GRPOJob) -> tuple[str, ...]:
    """Where a pod can write, apart from the operator's own folders."""
    return tuple(path for path, volume in _mounted(job) if volume.config_map is None and volume.secret is None)


def persistent_mounts(job: GRPOJob) -> tuple[str, ...]:
    """Where a pod can write to a volume that outlives it and that all hosts share."""
    return tuple(path for path, volume in _mounted(job) if any(getattr(volume, field) for field in PERSISTENT))


def _mounted(job: GRPOJob) -> Iterator[tuple[str, Volume]]:
    volumes = {volume.name: volume for volume in job.spec.volumes}
    for mount in job.spec.volume_mounts:
        volume = volumes.get(mount.name)
        if volume is not None and not mount.read_only and not _read_only(volume):
            yield mount.mount_path, volume


def _read_only(volume: Volume) -> bool:
    return any(getattr(getattr(volume, field), "read_only", None) for field in PERSISTENT)


def _one_source(job: GRPOJob, path: str, section: object, fields: Sequence[str]) -> Iterator[Violation]:
    given = [to_camel(field) for field in fields if getattr(section, field) is not None]
    if not given and not job.has_fault_below(path):
        yield Violation("required", path, None, f"names no source; give one of {', '.join(map(to_camel, fields))}")
    if len(given) > 1:
        yield Violation("type", path, None, f"names {' and '.join(given)}; keep one of them")


def _twice(path: str, keys: Iterable[str], field: str) -> Iterator[Violation]:
    seen: set[str] = set()
    for index, key in enumerate(keys):
        if key in seen:
            message = f"{shown(key)} stands here twice; remove one of them"
            yield Violation("duplicate-key", f"{path}[{index}].{field}", key, message)
        seen.add(key)
