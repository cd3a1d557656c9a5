"""Station 2, resolve: a GRPOJob and the devices it asks for in, the RunConfig or every violation out.

`validate` is this with the result thrown away. It knows no manifest, no cluster and no JAX.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from controller import clusterrules, outputrules, podrules
from controller.grpojob import ClusterSpec, GRPOJob
from controller.tpu import CpuHosts, TpuSlice, in_short
from trainer.contract.batch import BatchPlan
from trainer.contract.reading import schema_paths
from trainer.contract.run import Machine, Resolution, RunConfig, resolve_run
from trainer.contract.runner import RunnerConfig, with_origins
from trainer.contract.violations import Spelling, Violation

CPU_REQUEST, CPU_MEMORY = "1", "2Gi"
"""What a pod without a TPU asks for where the job says nothing: enough for a small model on a small cluster."""

NEEDS_A_MACHINE = frozenset(
    {
        "mesh",
        "mesh-over-slices",
        "prompts-over-processes",
        "rows-over-devices",
        "whole-passes",
        "micro-over-batch",
        "micro-over-shards",
        "accumulation",
        "model-over-tp",
    }
)
"""Batch rules that say nothing while processes and devices are not known."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A job with nothing left to decide: all that station 3 renders."""

    job: GRPOJob
    run: RunConfig
    devices: TpuSlice | CpuHosts
    slices: int
    warnings: tuple[Violation, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`resolved` is None where there are violations; `plan` is what the batch rules could still say."""

    resolved: Resolved | None
    plan: BatchPlan | None
    violations: tuple[Violation, ...]
    warnings: tuple[Violation, ...]


def resolve(job: GRPOJob, *, one_machine: bool = False) -> Outcome:
    """Every rule of the job at once. With `one_machine` all processes share one disk, which outlives them."""
    shape = clusterrules.look_up_slice(job)
    slice_ = shape if isinstance(shape, TpuSlice) else None
    devices, slices = _devices(job, slice_)
    run = _resolve_run(job, devices, slices)
    hosts = None if devices is None else devices.hosts * slices
    found = [*run.violations, *job.violations, *_rules(job, slice_)]
    found += [shape] if isinstance(shape, Violation) else []
    found += [] if one_machine else outputrules.check_output(job, hosts)
    warnings = [*run.warnings, *clusterrules.slice_warnings(slice_)]
    warnings += [] if one_machine else outputrules.output_warnings(job)
    violations = _in_order(found, job)
    resolved = None
    if not violations and run.run is not None and devices is not None:
        resolved = Resolved(job, run.run, devices, slices, _in_order(warnings, job))
    return Outcome(resolved, run.plan if resolved else None, violations, _in_order(warnings, job))


def machine_in_short(job: GRPOJob) -> str | None:
    """What the job runs on, in a column of a table; None where it names no machine that there is."""
    shape = clusterrules.look_up_slice(job)
    devices, slices = _devices(job, shape if isinstance(shape, TpuSlice) else None)
    return None if devices is None else in_short(devices, slices)


def _devices(job: GRPOJob, slice_: TpuSlice | None) -> tuple[TpuSlice | CpuHosts | None, int]:
    """What the job's processes run on, and how many slices of it; None while that is refused or said twice."""
    if job.gives("tpu") and job.gives("cpu"):
        return None, 1
    if slice_ is not None and job.spec.tpu is not None and job.knows("tpu.slices"):
        return slice_, job.spec.tpu.slices
    cpu = job.spec.cpu
    if cpu is None or not job.knows("cpu.hosts") or not job.knows("cpu.devices_per_host"):
        return None, 1
    return CpuHosts(cpu.hosts, cpu.devices_per_host, CPU_REQUEST, CPU_MEMORY), 1


def _resolve_run(job: GRPOJob, devices: TpuSlice | CpuHosts | None, slices: int) -> Resolution:
    """The runner's half. Without devices it is judged on one, and what depends on their number is left unsaid."""
    name = job.metadata.name
    if devices is None:
        run = resolve_run(job.runner, Machine(1, 1, 1, 1, "cpu"), name, Spelling.GRPOJOB)
        said = tuple(violation for violation in run.violations if violation.rule not in NEEDS_A_MACHINE)
        return Resolution(None, None, said, ())
    machine = Machine(
        processes=devices.hosts * slices,
        devices_per_process=devices.devices_per_process,
        hosts=devices.hosts,
        slices=slices,
        kind="tpu" if isinstance(devices, TpuSlice) else "cpu",
    )
    return resolve_run(job.runner, machine, name, Spelling.GRPOJOB)


def _rules(job: GRPOJob, slice_: TpuSlice | None) -> Iterator[Violation]:
    yield from clusterrules.check_name(job, slice_)
    yield from clusterrules.check_kind(job)
    yield from clusterrules.check_slices(job, slice_)
    yield from clusterrules.check_capacity(job)
    yield from clusterrules.check_code(job)
    yield from podrules.check_env(job)
    yield from podrules.check_resources(job)
    yield from podrules.check_labels(job)
    yield from podrules.check_volumes(job)
    yield from podrules.check_security(job)
    yield from clusterrules.check_lifecycle(job)


def _in_order(found: Iterable[Violation], job: GRPOJob) -> tuple[Violation, ...]:
    """The head of the document, its metadata, then `spec` in the order of the schema; unknown keys end a section."""
    ranks = _ranks()

    def rank(violation: Violation) -> tuple[int, int, int]:
        path = re.sub(r"\[\d+\]", "", violation.path)
        if not path.startswith("spec"):
            return (1 if path.startswith("metadata") else 0, 0, 0)
        if path in ranks:
            return (2, ranks[path], 0)
        below = path.rpartition(".")[0] + "."
        return (2, max((at for known, at in ranks.items() if known.startswith(below)), default=len(ranks)), 1)

    return with_origins(sorted(found, key=rank), job.origins, Spelling.GRPOJOB)


@cache
def _ranks() -> dict[str, int]:
    paths = ["", *schema_paths(RunnerConfig), *schema_paths(ClusterSpec)]
    return {Spelling.GRPOJOB.path(path): rank for rank, path in enumerate(paths)}
