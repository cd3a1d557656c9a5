"""Judging a batch request: which batch rules hold, which are broken, and the numbers that follow.

In: a `BatchRequest` of plain counts. Out: a `Judgement`; the same request always gives the same one. The rules and
their names are those of `rules.py`. Refuses to know words: messages and suggestions are made elsewhere.
"""

from dataclasses import dataclass, field
from math import gcd, lcm
from typing import Literal

from trainer.contract.meshshape import Mesh, read_mesh

MAX_GROUP = 1024
MAX_BATCH = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What a user asked of one training step, on a machine.

    `batch_size` counts sequences over all processes, the prompt sizes count prompts per pass, the micro sizes sequences
    per micro-step. None means left out. A field named in `unknown` was refused, so that no rule may rest on it.
    `hosts` is per slice; `grouped` tells an estimator that compares the completions of one prompt.
    """

    processes: int
    devices_per_process: int
    hosts: int
    slices: int
    mesh_shape: str = "auto"
    batch_size: int | None = None
    prompt_batch_size: int | None = None
    per_device_batch_size: int | None = None
    num_pre_q: int = 8
    padding: Literal["Reject", "RoundUp"] = "Reject"
    micro_batch_size: int | None = None
    per_device_micro_batch_size: int | None = None
    grad_accum_steps: int | None = None
    grouped: bool = True
    unknown: frozenset[str] = frozenset()

    def knows(self, *fields: str) -> bool:
        return self.unknown.isdisjoint(fields)

    def gives(self, name: str) -> bool:
        return name not in self.unknown and getattr(self, name) is not None


@dataclass(slots=True)
class Judgement:
    """Rules that ran, and what they yielded; a number is None while a rule that it rests on is broken or did not run.

    `shards` counts the data shards of a process, `unit` is U of the rounding (sequences per process), and
    `requested_prompts` the prompts per pass and process before any rounding.
    """

    broken: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    rounded: list[str] = field(default_factory=list)
    mesh: Mesh | None = None
    mesh_fault: str = ""
    shards: int | None = None
    prompts_per_step: int | None = None
    requested_prompts: int | None = None
    prompts_left_out: bool = False
    prompts: int | None = None
    passes: int | None = None
    local: int | None = None
    micro: int | None = None
    micro_left_out: bool = False
    unit: int | None = None
    micro_steps: int | None = None

    def say(self, rule: str, holds: bool) -> bool:
        if holds:
            self.held.add(rule)
        else:
            self.broken.append(rule)
        return holds


def round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def judge(request: BatchRequest) -> Judgement:
    """Run every rule whose inputs are known, in the order in which their results depend on each other."""
    found = Judgement()
    _judge_mesh(request, found)
    _judge_request(request, found)
    _judge_micro_size(request, found)
    found.unit = _unit(request, found)
    if found.prompts_left_out:
        _derive_prompts(request, found)
    elif found.requested_prompts is not None:
        _divide_given_prompts(request, found)
    if found.passes is not None and found.prompts is not None and request.knows("num_pre_q"):
        found.local = found.passes * found.prompts * request.num_pre_q
        _judge_micro_steps(request, found, found.local)
    return found


def _judge_mesh(request: BatchRequest, found: Judgement) -> None:
    if not request.knows("mesh_shape"):
        return
    mesh = read_mesh(request.mesh_shape, request.processes, request.devices_per_process, request.slices)
    if not found.say("mesh", isinstance(mesh, Mesh)):
        found.mesh_fault = str(mesh)
    elif isinstance(mesh, Mesh):
        found.mesh = mesh
        found.shards = request.devices_per_process // mesh.tp
        found.say("mesh-over-slices", mesh.dp % request.slices == 0)


def _judge_request(request: BatchRequest, found: Judgement) -> None:
    batch, group = request.batch_size, request.num_pre_q
    prompts, per_device = request.prompt_batch_size, request.per_device_batch_size
    if request.knows("num_pre_q", "grouped") and request.grouped:
        found.say("group", group >= 2)
    if request.knows("batch_size", "prompt_batch_size", "per_device_batch_size"):
        found.say("some-size", not (batch is None and prompts is None and per_device is None))
    if request.knows("prompt_batch_size", "per_device_batch_size"):
        found.prompts_left_out = prompts is None and per_device is None
        if found.say("one-prompt-size", prompts is None or per_device is None):
            found.requested_prompts = per_device * request.devices_per_process if per_device is not None else prompts
    if (
        request.knows("batch_size", "num_pre_q")
        and batch is not None
        and found.say("batch-of-groups", batch % group == 0)
    ):
        found.prompts_per_step = batch // group


def _judge_micro_size(request: BatchRequest, found: Judgement) -> None:
    if not request.knows("micro_batch_size", "per_device_micro_batch_size"):
        return
    micro, per_device = request.micro_batch_size, request.per_device_micro_batch_size
    found.micro_left_out = micro is None and per_device is None
    if found.say("one-micro-size", micro is None or per_device is None):
        found.micro = per_device * request.devices_per_process if per_device is not None else micro
    if found.micro is not None and found.shards is not None:
        found.say("micro-over-shards", found.micro % found.shards == 0)


def _unit(request: BatchRequest, found: Judgement) -> int | None:
    """U: what the sequences of a process are rounded to. None where nothing may be derived by rounding."""
    if found.shards is None:
        return None
    if found.micro is not None:
        return lcm(found.micro, found.shards) if "micro-over-shards" in found.held else None
    if not found.micro_left_out or not request.knows("grad_accum_steps"):
        return None
    return found.shards * (request.grad_accum_steps or 1)


def _holds_or_rounds(request: BatchRequest, found: Judgement, rule: str, holds: bool) -> bool:
    """Judge a rule that `padding: RoundUp` would heal: with padding unknown its fault is not known either."""
    if holds or (request.knows("padding") and request.padding == "Reject"):
        return found.say(rule, holds)
    return False


def _rounds(request: BatchRequest) -> bool:
    return request.knows("padding") and request.padding == "RoundUp"


def _derive_prompts(request: BatchRequest, found: Judgement) -> None:
    """Prompts per pass, left out: all prompts of a process in one pass."""
    prompts, group = found.prompts_per_step, request.num_pre_q
    if prompts is None:
        return
    if _rounds(request):
        _derive_rounded_prompts(request, found, prompts)
    elif _holds_or_rounds(request, found, "prompts-over-processes", prompts % request.processes == 0):
        found.prompts = prompts // request.processes
        found.passes = 1
        rows = found.prompts * group
        if found.shards is not None and not _holds_or_rounds(
            request, found, "rows-over-devices", rows % found.shards == 0
        ):
            found.prompts = found.prompts if request.knows("padding") else None


def _derive_rounded_prompts(request: BatchRequest, found: Judgement, prompts: int) -> None:
    if found.unit is None or found.shards is None:
        return
    group = request.num_pre_q
    found.prompts = round_up(-(-prompts // request.processes), found.unit // gcd(group, found.unit))
    found.passes = 1
    found.held |= {"prompts-over-processes", "rows-over-devices"}
    if prompts % request.processes:
        found.rounded.append("prompts-over-processes")
    elif found.prompts * request.processes != prompts:
        rows = prompts // request.processes * group
        found.rounded.append("rows-over-devices" if rows % found.shards else _micro_rule(found))


def _micro_rule(found: Judgement) -> str:
    return "accumulation" if found.micro is None else "micro-over-batch"


def _divide_given_prompts(request: BatchRequest, found: Judgement) -> None:
    """Prompts per pass, given: whole rows on every shard, then whole passes over the prompts of a step."""
    found.prompts = found.requested_prompts
    if request.knows("num_pre_q"):
        found.prompts = _rows_over_devices(request, found)
    if found.prompts is None or not request.knows("batch_size"):
        return
    if request.batch_size is None:
        found.passes = 1
    elif found.prompts_per_step is not None:
        found.passes = _whole_passes(request, found, found.prompts_per_step, found.prompts * request.processes)


def _rows_over_devices(request: BatchRequest, found: Judgement) -> int | None:
    prompts, group, shards = found.requested_prompts, request.num_pre_q, found.shards
    if prompts is None or shards is None:
        return None if request.padding == "RoundUp" or not request.knows("padding") else prompts
    holds = prompts * group % shards == 0
    if holds or not _rounds(request):
        _holds_or_rounds(request, found, "rows-over-devices", holds)
        return prompts if holds or request.knows("padding") else None
    found.held.add("rows-over-devices")
    found.rounded.append("rows-over-devices")
    return round_up(prompts, shards // gcd(group, shards))


def _whole_passes(request: BatchRequest, found: Judgement, prompts: int, prompts_per_pass: int) -> int | None:
    if not _rounds(request):
        whole = _holds_or_rounds(request, found, "whole-passes", prompts % prompts_per_pass == 0)
        return prompts // prompts_per_pass if whole else None
    if found.unit is None:
        return None
    found.held.add("whole-passes")
    fewest = -(-prompts // prompts_per_pass)
    rows = prompts_per_pass // request.processes * request.num_pre_q
    passes = round_up(fewest, found.unit // gcd(rows, found.unit))
    if passes * prompts_per_pass != prompts:
        found.rounded.append("whole-passes" if prompts % prompts_per_pass else _micro_rule(found))
    return passes


def _judge_micro_steps(request: BatchRequest, found: Judgement, local: int) -> None:
    steps = request.grad_accum_steps if request.knows("grad_accum_steps") else None
    if found.micro is not None:
        rounds = request.gives("batch_size")
        holds = local % found.micro == 0
        whole = (
            _holds_or_rounds(request, found, "micro-over-batch", holds)
            if rounds
            else found.say("micro-over-batch", holds)
        )
        if whole and (steps is None or found.say("accumulation", steps * found.micro == local)):
            found.micro_steps = local // found.micro
    elif found.micro_left_out and request.knows("grad_accum_steps"):
        _accumulate(request, found, local, steps or 1)


def _accumulate(request: BatchRequest, found: Judgement, local: int, steps: int) -> None:
    """Micro-steps without a micro size: the sequences of a process in `steps` equal parts, whole on every shard."""
    part = found.shards if "rows-over-devices" in found.held and found.shards is not None else 1
    holds = local % (steps * part) == 0
    whole = (
        _holds_or_rounds(request, found, "accumulation", holds)
        if request.gives("batch_size")
        else found.say("accumulation", holds)
    )
    if whole:
        found.micro = local // steps
        found.micro_steps = steps
