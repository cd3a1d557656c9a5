"""Station 2, resolve: a GRPOJob and the devices it asks for in, the RunConfig or every violation out.

`validate` is this with the result thrown away. It knows no manifest, no cluster and no JAX.
"""

from dataclasses import dataclass

from controller.grpojob import GRPOJob
from controller.tpu import CpuHosts, TpuSlice
from trainer.contract.batch import BatchPlan
from trainer.contract.run import RunConfig
from trainer.contract.violations import Violation


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
