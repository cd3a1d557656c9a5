"""The rules of a GRPOJob's cluster part: what its values mean together, below station 2.

In: a job as read, and its slice where that is known. Out: violations, and warnings, of the cluster's part and the name.
It knows no batch arithmetic and no manifest; a rule whose inputs were refused says nothing.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from controller import names
from controller.grpojob import GRPOJob
from controller.tpu import NoSuchSlice, TpuSlice, find_slice, multi_host_topology, slice_doubts
from trainer.contract.violations import Violation, shown

RESERVATION = re.compile(
    r"[^/]+|projects/[^/]+/reservations/[^/]+(/reservationBlocks/[^/]+(/reservationSubBlocks/[^/]+)?)?"
)

NO_DEVICES = "names no devices; give tpu (accelerator and topology), or cpu (hosts and devicesPerHost)"
BOTH_DEVICES = "a job trains on tpu or on cpu, not on both; remove one of them"
NO_SOURCE = "names no source; give configMap (a ConfigMap of Python files)"
BOTH_SOURCES = "names configMap and uri; keep one of them"


def check_kind(job: GRPOJob) -> Iterator[Violation]:
    """Rule one-device-kind."""
    if {"tpu", "cpu"} <= job.refused:
        return
    given = [kind for kind in ("tpu", "cpu") if job.gives(kind)]
    if not given:
        yield Violation("one-device-kind", "spec", None, NO_DEVICES)
    if len(given) == 2:
        yield Violation("one-device-kind", "spec.cpu", "tpu and cpu", BOTH_DEVICES)


def look_up_slice(job: GRPOJob) -> TpuSlice | Violation | None:
    """The slice a job names; the violation of rule tpu-shape; or nothing, where its names are not known."""
    tpu = job.spec.tpu
    if tpu is None or not all(job.knows(f"tpu.{field}") for field in ("accelerator", "topology", "machine_type")):
        return None
    found = find_slice(tpu.accelerator, tpu.topology, tpu.machine_type)
    if isinstance(found, NoSuchSlice):
        path = {"machine_type": "machineType"}.get(found.field, found.field)
        return Violation("tpu-shape", f"spec.tpu.{path}", getattr(tpu, found.field), found.message)
    return found


def check_slices(job: GRPOJob, slice_: TpuSlice | None) -> Iterator[Violation]:
    """Rule slices-multi-host (https://cloud.google.com/kubernetes-engine/docs/how-to/tpu-multislice)."""
    tpu = job.spec.tpu
    if tpu is None or slice_ is None or tpu.slices == 1 or slice_.hosts > 1:
        return
    larger = multi_host_topology(slice_)
    yield Violation(
        "slices-multi-host",
        "spec.tpu.slices",
        tpu.slices,
        f"{tpu.slices} slices of {slice_.topology} on {slice_.machine_type} have one host each, and only slices of "
        f"several hosts can be joined; use {f'1, or slices of {larger}' if larger else '1'}",
    )


def check_capacity(job: GRPOJob) -> Iterator[Violation]:
    """Rule capacity-fields: a reservation is named exactly where the type asks for one."""
    if job.spec.tpu is None or not job.knows("tpu.capacity"):
        return
    capacity, path = job.spec.tpu.capacity, "spec.tpu.capacity.reservation"
    if not job.knows("tpu.capacity.type") or not job.knows("tpu.capacity.reservation"):
        return
    if capacity.type == "Reservation" and capacity.reservation is None:
        yield Violation(
            "capacity-fields",
            path,
            None,
            "null names none, and type Reservation needs one; give the reservation's name",
        )
    elif capacity.type != "Reservation" and capacity.reservation is not None:
        message = (
            f"{shown(capacity.reservation)} is not used with type {capacity.type}; set type Reservation or remove it"
        )
        yield Violation("capacity-fields", path, capacity.reservation, message)
    elif capacity.reservation is not None and not RESERVATION.fullmatch(capacity.reservation):
        message = (
            f"{shown(capacity.reservation)} is no reservation; write its name, or projects/PROJECT/reservations/NAME"
        )
        yield Violation("capacity-fields", path, capacity.reservation, message)


def check_code(job: GRPOJob) -> Iterator[Violation]:
    """Rule code-one-of, and not-yet for archives."""
    code = job.spec.code
    if code is None or not all(job.knows(f"code.{field}") for field in ("config_map", "uri", "sha256")):
        return
    if code.config_map is not None and code.uri is not None:
        yield Violation("code-one-of", "spec.code", None, BOTH_SOURCES)
    elif code.config_map is None and code.uri is None:
        yield Violation("code-one-of", "spec.code", None, NO_SOURCE)
    elif code.uri is not None and code.sha256 is None:
        yield Violation("code-one-of", "spec.code.sha256", None, "a uri needs the archive's digest; give sha256")
    elif code.config_map is not None and code.sha256 is not None:
        yield Violation(
            "code-one-of",
            "spec.code.sha256",
            code.sha256,
            f"{shown(code.sha256)} goes with uri, not with configMap; remove it",
        )
    if code.uri is not None and code.config_map is None:
        message = (
            "code from an archive is not built yet; use configMap (kubectl create configmap NAME --from-file=FOLDER)"
        )
        yield Violation("not-yet", "spec.code.uri", code.uri, message)


def check_name(job: GRPOJob, slice_: TpuSlice | None) -> Iterator[Violation]:
    """Rule name: a DNS-1035 label short enough for the pods' names and the coordinator's label."""
    name = job.metadata.name
    if not job.knows("metadata.name"):
        return
    if not names.DNS_1035.fullmatch(name):
        yield Violation(
            "name",
            "metadata.name",
            name,
            f"{shown(name)} is no DNS label (lower-case letters, digits and '-', a letter first); "
            f"use {_label_like(name)}",
        )
    longest = names.longest_name(*_pods(job, slice_))
    if len(name) > longest:
        yield Violation(
            "name",
            "metadata.name",
            name,
            f"{shown(name)} has {len(name)} characters, and its pods' names leave {longest} (labels of Kubernetes "
            f"end at {names.MAX_LABEL}); use {_label_like(name)[:longest].rstrip('-')}",
        )


def _pods(job: GRPOJob, slice_: TpuSlice | None) -> tuple[int, int]:
    if job.spec.cpu is not None:
        return 1, job.spec.cpu.hosts
    return (job.spec.tpu.slices if job.spec.tpu else 1), (slice_.hosts if slice_ else 1)


def _label_like(name: str) -> str:
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return label if label[:1].isalpha() else f"run-{label}".rstrip("-")


def check_lifecycle(job: GRPOJob) -> Iterator[Violation]:
    """A start may not take longer than the whole run may."""
    lifecycle = job.spec.lifecycle
    startup, active = lifecycle.startup_deadline_seconds, lifecycle.active_deadline_seconds
    if startup is not None and active is not None and startup >= active:
        yield Violation(
            "range",
            "spec.lifecycle.startupDeadlineSeconds",
            startup,
            f"{startup} must be below activeDeadlineSeconds = {active}; use {max(1, active // 2)} or less",
        )


def slice_warnings(slice_: TpuSlice | None) -> Iterable[Violation]:
    """What makes the slice doubtful though it exists in the catalogue."""
    if slice_ is None:
        return ()
    return tuple(Violation("tpu-shape", "spec.tpu", _shape(slice_), doubt) for doubt in slice_doubts(slice_))


def _shape(slice_: TpuSlice) -> dict[str, Any]:
    return {"accelerator": slice_.accelerator, "topology": slice_.topology}
