"""The batch rules: a pure function from requested counts to a plan, or to every violation at once.

In: a `BatchRequest` and the spelling in which to speak. Out: a `BatchOutcome`. Each violation says value, rule with its
arithmetic, and the nearest legal values. Refuses to know files, models and clusters.
"""

from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from trainer.contract.batchwords import FIXES, PATHS, blamed_field, rounding_warnings, statement
from trainer.contract.judgement import BatchRequest, Judgement, judge
from trainer.contract.meshshape import Mesh
from trainer.contract.suggestion import suggest
from trainer.contract.violations import Spelling, Violation, counted, to_camel, use


class BatchPlan(BaseModel):
    """The resolved arithmetic of one training step. Counts carry unit and scope in their names.

    `hosts` is per slice; a process is a host. `sequences_per_step` is global, over all processes.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", strict=True)

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

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        """A plan carries its own proof: one edited by hand is refused where it is read."""
        prompts = self.passes * self.prompts_per_pass_per_process
        parts = (
            self.processes == self.hosts * self.slices,
            self.mesh.dp * self.mesh.fsdp * self.mesh.tp == self.processes * self.devices_per_process,
            self.prompts_per_step == prompts * self.processes,
            self.sequences_per_step == self.prompts_per_step * self.group_size,
            self.sequences_per_process == prompts * self.group_size,
            self.sequences_per_process == self.micro_steps * self.sequences_per_micro_step,
        )
        if min(self.micro_steps, self.passes, self.processes, self.devices_per_process, self.mesh.tp) < 1:
            raise ValueError("the counts of a batch plan are at least 1")
        if not all(parts):
            raise ValueError("the numbers of the batch plan contradict each other")
        return self

    @property
    def summary(self) -> str:
        """One sentence for people."""
        passes = (
            f"{self.passes} pass{'es' * (self.passes > 1)} of {counted(self.prompts_per_pass_per_process, 'prompt')}"
        )
        return (
            f"{counted(self.prompts_per_step, 'prompt')} x {counted(self.group_size, 'completion')} = "
            f"{counted(self.sequences_per_step, 'sequence')} "
            f"per step; each of {counted(self.processes, 'process', 'es')} samples {self.sequences_per_process} in "
            f"{passes} and updates in {counted(self.micro_steps, 'micro-step')} of {self.sequences_per_micro_step}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The keys of `plan -o json` and of the status: camelCase, `summary` last."""
        plain = {to_camel(key): value for key, value in self.model_dump().items()}
        return {**plain, "summary": self.summary}


_FIELDS, _RULES = tuple(PATHS), tuple(FIXES)


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """A plan, or why there is none. `plan` is None where anything is broken or not known."""

    plan: BatchPlan | None
    violations: tuple[Violation, ...]
    warnings: tuple[Violation, ...]


def resolve_batch(request: BatchRequest, spelling: Spelling) -> BatchOutcome:
    """Every violation of the batch rules, or the plan with a warning for each number that was rounded up."""
    found = judge(request)
    broken = sorted(found.broken, key=lambda rule: (_FIELDS.index(blamed_field(request, rule)), _RULES.index(rule)))
    violations = tuple(_violation(request, found, rule, spelling) for rule in broken)
    plan = None if violations or request.unknown else _plan(request, found)
    warnings = rounding_warnings(request, found, spelling) if plan else ()
    return BatchOutcome(plan, violations, warnings)


def suggested_fix(request: BatchRequest, rule: str, field: str, asked: float, fallback: str) -> str:
    """The fix for a number of the batch that some rule refused: nearest legal values, or a fixed sentence."""
    values = suggest(request, rule, field, asked)
    return use(values) if values else fallback


def _violation(request: BatchRequest, found: Judgement, rule: str, spelling: Spelling) -> Violation:
    field = blamed_field(request, rule)
    value = getattr(request, field)
    fix = FIXES[rule](spelling)
    if rule not in ("mesh", "mesh-over-slices", "some-size", "one-prompt-size", "one-micro-size"):
        fix = suggested_fix(request, rule, field, value, fix)
    message = f"{statement(request, found, rule, spelling)}; {fix}"
    return Violation(rule, spelling.path(PATHS[field]), value, message)


def _plan(request: BatchRequest, found: Judgement) -> BatchPlan | None:
    numbers = (found.mesh, found.prompts, found.passes, found.local, found.micro, found.micro_steps)
    mesh, prompts, passes, local, micro, steps = numbers
    if mesh is None or prompts is None or passes is None or local is None or micro is None or steps is None:
        return None
    return BatchPlan(
        processes=request.processes,
        devices_per_process=request.devices_per_process,
        hosts=request.hosts,
        slices=request.slices,
        mesh=mesh,
        group_size=request.num_pre_q,
        sequences_per_step=local * request.processes,
        prompts_per_step=prompts * passes * request.processes,
        prompts_per_pass_per_process=prompts,
        passes=passes,
        sequences_per_process=local,
        sequences_per_micro_step=micro,
        micro_steps=steps,
    )
