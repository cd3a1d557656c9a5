"""The batch rules: a pure function from requested counts to a plan, or to every violation at once."""

from pydantic import BaseModel, ConfigDict


class Mesh(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dp: int
    fsdp: int
    tp: int


class BatchPlan(BaseModel):
    """The resolved arithmetic of one training step. Counts carry unit and scope in their names.

    `hosts` is per slice; a process is a host. `sequences_per_step` is global, over all processes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    processes: int
    devices_per_process: int
    hosts: int
    slices: int
    mesh: Mesh
    group_size: int
    sequences_per_step: int
    prompts_per_step: int
    prompts_per_pass_per_process: int
    passes: int
    sequences_per_process: int
    sequences_per_micro_step: int
    micro_steps: int
