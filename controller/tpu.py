"""The slices of GKE: accelerator, topology and machine type in, hosts, chips, devices and pod requests out.

The catalogue is data (`data/tpu-catalog.json`, with its sources). It knows no job: `resolve` asks.
"""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from trainer.contract.violations import shown

REQUESTED_SHARE = 0.8
"""Of a VM's CPU and memory. GKE keeps about a tenth of the smallest TPU machine (48 GiB: 4.6 GiB) for the system
(https://cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes); the rest is left to daemon sets."""

CUBE = 4
"""Above the small topologies, a 3D slice is made of cubes of 4x4x4 chips."""


@dataclass(frozen=True, slots=True)
class TpuSlice:
    """One slice. `hosts` are its VMs, one process each; `devices_per_process` are JAX devices.

    `cpu` and `memory` are what a pod asks for on one host, None where the machine's size is not published.
    """

    accelerator: str
    topology: str
    machine_type: str
    generation: str
    chips: int
    hosts: int
    chips_per_host: int
    devices_per_chip: int
    cpu: str | None
    memory: str | None

    @property
    def devices_per_process(self) -> int:
        return self.chips_per_host * self.devices_per_chip


@dataclass(frozen=True, slots=True)
class CpuHosts:
    """Hosts without a TPU, one process each with `devices_per_process` JAX CPU devices."""

    hosts: int
    devices_per_process: int
    cpu: str
    memory: str


def in_short(devices: TpuSlice | CpuHosts, slices: int) -> str:
    """The machine in a column of a table: `v6e 4x4`, `2 x v6e 4x4`; of CPU hosts `cpu 2x4`, hosts by devices."""
    if isinstance(devices, CpuHosts):
        return f"cpu {devices.hosts}x{devices.devices_per_process}"
    return f"{slices} x " * (slices > 1) + f"{devices.generation} {devices.topology}"


@dataclass(frozen=True, slots=True)
class NoSuchSlice:
    """Why the three names make no slice: the field to blame, and what is wrong with the way out."""

    field: Literal["accelerator", "topology", "machine_type"]
    message: str


@cache
def _catalogue() -> dict[str, Any]:
    text = files("controller").joinpath("data/tpu-catalog.json").read_text(encoding="utf-8")
    catalogue: dict[str, Any] = json.loads(text)
    return catalogue


def accelerators() -> tuple[str, ...]:
    """Every value of the node label `cloud.google.com/gke-tpu-accelerator` that names a slice, the usual ones first."""
    return tuple(_catalogue()["accelerators"])


def find_slice(accelerator: str, topology: str, machine_type: str | None) -> TpuSlice | NoSuchSlice:
    """The one slice that the names stand for; an ambiguous pair without a machine type is refused with both choices."""
    family = _catalogue()["accelerators"].get(accelerator)
    if family is None:
        return NoSuchSlice("accelerator", _unknown_accelerator(accelerator))
    machines = _machines(family, topology)
    if not machines:
        return NoSuchSlice("topology", _unknown_topology(accelerator, family, topology))
    if machine_type is None:
        usual = [name for name in machines if not _catalogue()["machine_types"][name].get("only_if_named")]
        if len(usual) > 1:
            return NoSuchSlice("machine_type", _ambiguous(accelerator, topology, usual))
        machine_type = usual[0]
    if machine_type not in machines:
        return NoSuchSlice("machine_type", _unknown_machine(accelerator, topology, machine_type, machines))
    return _slice(accelerator, topology, machine_type)


def _slice(accelerator: str, topology: str, machine_type: str) -> TpuSlice:
    family, machine = _catalogue()["accelerators"][accelerator], _catalogue()["machine_types"][machine_type]
    chips = math.prod(_axes(topology))
    vcpu, memory = machine["vcpu"], machine["memory_gib"]
    return TpuSlice(
        accelerator=accelerator,
        topology=topology,
        machine_type=machine_type,
        generation=family["generation"],
        chips=chips,
        hosts=chips // machine["chips"],
        chips_per_host=machine["chips"],
        devices_per_chip=family["devices_per_chip"],
        cpu=None if vcpu is None else str(int(vcpu * REQUESTED_SHARE)),
        memory=None if memory is None else f"{int(memory * REQUESTED_SHARE)}Gi",
    )


def slice_doubts(found: TpuSlice) -> tuple[str, ...]:
    """What a user should know before waiting for this slice: each a sentence for a warning, empty for most."""
    family = _catalogue()["accelerators"][found.accelerator]
    doubts = []
    if family["status"] == "legacy":
        doubts.append(f"{found.accelerator} is a legacy accelerator that GKE may no longer offer")
    if family["status"] == "unverified":
        doubts.append(f"{found.accelerator} is known to GKE's autoscaler, but no public page describes it")
    documented, cubes = family.get("max_cubes_documented"), found.chips // CUBE**3
    if documented and cubes > documented:
        doubts.append(
            f"{found.topology} has {cubes} cubes of 4x4x4; the largest single job that is documented for "
            f"{found.generation} has {documented} (16x16x24)"
        )
    return tuple(doubts)


def multi_host_topology(found: TpuSlice) -> str | None:
    """The smallest topology of the same accelerator, on the same or a larger machine, that is several hosts."""
    for topology in topologies(found.accelerator):
        other = find_slice(found.accelerator, topology, None)
        if isinstance(other, TpuSlice) and other.hosts > 1 and other.chips > found.chips:
            return topology
    return None


def topologies(accelerator: str) -> tuple[str, ...]:
    """Every valid topology of an accelerator, by chips."""
    family = _catalogue()["accelerators"][accelerator]
    return tuple(sorted([*family["topologies"], *_cubes(family.get("max_cubes", 0))], key=_by_chips))


@cache
def _cubes(max_cubes: int) -> tuple[str, ...]:
    found = []
    for a in range(1, max_cubes + 1):
        for b in range(a, max_cubes // a + 1):
            found += [f"{a * CUBE}x{b * CUBE}x{c * CUBE}" for c in range(b, max_cubes // (a * b) + 1)]
    return tuple(found)


def _machines(family: Mapping[str, Any], topology: str) -> list[str]:
    small: list[str] | None = family["topologies"].get(topology)
    if small is not None:
        return small
    return list(family["cube_machine_types"]) if topology in _cubes(family.get("max_cubes", 0)) else []


def _axes(topology: str) -> tuple[int, ...]:
    """`2x2x4` as numbers; nothing where it is no topology at all."""
    if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){1,2}", topology):
        return ()
    return tuple(int(axis) for axis in topology.split("x"))


def _by_chips(topology: str) -> tuple[int, tuple[int, ...]]:
    axes = _axes(topology)
    return math.prod(axes), axes


def _unknown_accelerator(accelerator: str) -> str:
    near = _of_generation(accelerator) or difflib.get_close_matches(accelerator, accelerators(), n=1)
    return f"{shown(accelerator)} is no TPU accelerator of GKE; use {_either(near or accelerators())}"


def _of_generation(accelerator: str) -> list[str]:
    """The families that someone may mean who writes `v5e`, `v6` or `tpu-v5-podslice`."""
    named = re.search(r"\d[a-z]?", accelerator)
    tokens = (named[0], named[0][0]) if named else ()
    for token in tokens:
        found = [
            name
            for name, family in _catalogue()["accelerators"].items()
            if family["status"] == "current" and family["generation"].lstrip("tpuv").startswith(token)
        ]
        if found:
            return found
    return []


def _either(choices: Iterable[str]) -> str:
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


def _unknown_topology(accelerator: str, family: Mapping[str, Any], topology: str) -> str:
    axes = _axes(topology)
    known = topologies(accelerator)
    if not axes:
        example = known[min(2, len(known) - 1)]
        return f"{shown(topology)} is no topology; write the chips along each axis, such as {example}"
    why = f"{shown(topology)} is no topology of {accelerator}"
    if family["dims"] == len(axes) == 3:
        most = family["max_cubes"]
        why += f" (above 2x4x4 the axes are multiples of 4, smallest first, and at most {most} cubes of 4x4x4)"
    elif len(axes) != family["dims"]:
        why += f", which has {family['dims']} axes"
    return f"{why}; use {_either(_nearest(axes, known))}"


def _nearest(axes: tuple[int, ...], known: Iterable[str]) -> list[str]:
    """The same chips in another order or shape if there is one, else the nearest below and the nearest above."""
    chips = math.prod(axes)
    alike = sorted(known, key=lambda topology: _unlikeness(axes, topology))
    same = [topology for topology in alike if math.prod(_axes(topology)) == chips]
    if same:
        return same[:1]
    below = max((math.prod(_axes(topology)) for topology in alike if math.prod(_axes(topology)) < chips), default=0)
    above = min((math.prod(_axes(topology)) for topology in alike if math.prod(_axes(topology)) > chips), default=0)
    found = []
    for count in (below, above):
        found += [topology for topology in alike if math.prod(_axes(topology)) == count][:1]
    return found


def _unlikeness(axes: tuple[int, ...], topology: str) -> int:
    other = _axes(topology)
    width = max(len(axes), len(other))
    padded = zip(
        sorted((*axes, *[1] * (width - len(axes)))), sorted((*other, *[1] * (width - len(other)))), strict=True
    )
    return sum(abs(a - b) for a, b in padded)


def _choice(accelerator: str, topology: str, machine_type: str) -> str:
    found = _slice(accelerator, topology, machine_type)
    hosts = "1 host" if found.hosts == 1 else f"{found.hosts} hosts"
    return f"{machine_type} ({hosts} of {found.chips_per_host} chips)"


def _ambiguous(accelerator: str, topology: str, machines: Iterable[str]) -> str:
    choices = _either(_choice(accelerator, topology, name) for name in machines)
    return f"null leaves a choice: {topology} of {accelerator} is sold on two machine types; use {choices}"


def _unknown_machine(accelerator: str, topology: str, machine_type: str, machines: Iterable[str]) -> str:
    choices = _either(_choice(accelerator, topology, name) for name in machines)
    return f"{shown(machine_type)} forms no {topology} of {accelerator}; use {choices}"


def memory_per_device(found: TpuSlice) -> int | None:
    """High-bandwidth memory of one JAX device in bytes, None where it is not published."""
    gibibytes = _catalogue()["accelerators"][found.accelerator]["chip"]["hbm_gib"]
    return None if gibibytes is None else gibibytes * 2**30 // found.devices_per_chip
