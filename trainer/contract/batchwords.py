"""The words of the batch rules: what is blamed, what the rule says with its arithmetic, and the fixed fixes.

In: a request and its judgement. Out: parts of messages, in the user's spelling. Decides nothing.
"""

from collections.abc import Callable

from trainer.contract import meshshape
from trainer.contract.judgement import BatchRequest, Judgement
from trainer.contract.violations import Spelling, Violation, counted, shown

PATHS = {
    "batch_size": "rollout.batch_size",
    "prompt_batch_size": "rollout.prompt_batch_size",
    "per_device_batch_size": "rollout.per_device_batch_size",
    "num_pre_q": "rollout.num_pre_q",
    "padding": "rollout.padding",
    "micro_batch_size": "train.micro_batch_size",
    "per_device_micro_batch_size": "train.per_device_micro_batch_size",
    "grad_accum_steps": "train.grad_accum_steps",
    "mesh_shape": "mesh_shape",
}
"""The fields of a batch request, by their place in the runner's tree."""


def prompt_field(request: BatchRequest) -> str:
    """The field that the prompts per pass came from."""
    if request.prompt_batch_size is not None:
        return "prompt_batch_size"
    return "batch_size" if request.per_device_batch_size is None else "per_device_batch_size"


def micro_field(request: BatchRequest) -> str:
    return "micro_batch_size" if request.per_device_micro_batch_size is None else "per_device_micro_batch_size"


def blamed_field(request: BatchRequest, rule: str) -> str:
    """The field a user must change; a number that was derived blames the field it came from."""
    match rule:
        case "mesh" | "mesh-over-slices":
            return "mesh_shape"
        case "group":
            return "num_pre_q"
        case "one-prompt-size":
            return "per_device_batch_size"
        case "one-micro-size":
            return "per_device_micro_batch_size"
        case "rows-over-devices" | "whole-passes":
            return prompt_field(request)
        case "micro-over-batch" | "micro-over-shards":
            return micro_field(request)
        case "accumulation":
            return "grad_accum_steps"
    return "batch_size"


FIXES: dict[str, Callable[[Spelling], str]] = {
    "mesh": lambda _: meshshape.FIX,
    "mesh-over-slices": lambda _: meshshape.SLICES_FIX,
    "group": lambda s: f"raise {s.name('num_pre_q')}, and choose a {s.name('batch_size')} that is a multiple of it",
    "some-size": lambda s: f"give {s.name('batch_size')} or {s.name('prompt_batch_size')}",
    "one-prompt-size": lambda s: f"leave out {s.name('prompt_batch_size')} or {s.name('per_device_batch_size')}",
    "batch-of-groups": lambda s: (
        f"no {s.name('batch_size')} fits: lower {s.name('num_pre_q')}, the prompts per pass or the micro-batch"
    ),
    "prompts-over-processes": lambda s: (
        f"no {s.name('batch_size')} fits: lower {s.name('num_pre_q')} or the micro-batch, or use fewer processes"
    ),
    "rows-over-devices": lambda s: (
        f"no number of prompts fits: choose a {s.name('batch_size')} that is a multiple of "
        f"{s.name('num_pre_q')} x all data shards"
    ),
    "whole-passes": lambda s: (
        f"no number of prompts fits: choose a {s.name('batch_size')} that is a multiple of "
        f"{s.name('num_pre_q')} x processes"
    ),
    "one-micro-size": lambda s: f"leave out {s.name('micro_batch_size')} or {s.name('per_device_micro_batch_size')}",
    "micro-over-batch": lambda s: (
        f"no micro-batch fits: change {s.name('batch_size')}, or leave {s.name('grad_accum_steps')} out"
    ),
    "micro-over-shards": lambda s: (
        f"no micro-batch fits: change {s.name('batch_size')}, or leave {s.name('grad_accum_steps')} out"
    ),
    "accumulation": lambda s: f"leave {s.name('grad_accum_steps')} out: it is derived",
}
"""The fix of a rule where its field is no number, or where no value of it exists."""


def statement(request: BatchRequest, found: Judgement, rule: str, spelling: Spelling) -> str:
    """Value and rule, with the arithmetic; never holds a semicolon, which is what the fix stands behind."""
    value = shown(getattr(request, blamed_field(request, rule)))
    return f"{value} {_STATEMENTS[rule](request, found, spelling)}"


def _mesh_over_slices(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    dp = found.mesh.dp if found.mesh else 0
    return f"has dp = {dp}, which must be a multiple of the {request.slices} slices: fsdp and tp stay inside a slice"


def _some_size(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    return "leaves the size of a step open, and no prompts per pass are given either"


def _one_prompt_size(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    devices, other = request.devices_per_process, request.prompt_batch_size
    return (
        f"x {devices} devices and {spelling.name('prompt_batch_size')} = {other} both set the prompts per pass of a "
        "process, and only one of the two may"
    )


def _one_micro_size(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    devices, other = request.devices_per_process, request.micro_batch_size
    return (
        f"x {devices} devices and {spelling.name('micro_batch_size')} = {other} both set the sequences per micro-step "
        "of a process, and only one of the two may"
    )


def _group(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    return "leaves nothing to compare: an advantage is a completion against the others of its prompt, so at least 2"


def _batch_of_groups(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    group = request.num_pre_q
    completions = "completion" if group == 1 else "completions"
    return f"must be a multiple of {spelling.name('num_pre_q')} = {group} (each prompt has {group} {completions})"


def _prompts_over_processes(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    return (
        f"must give every process as many prompts: {request.batch_size} / {spelling.name('num_pre_q')} "
        f"{request.num_pre_q} = {found.prompts_per_step} prompts over {request.processes} processes"
    )


def _rows_over_devices(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    prompts = (found.requested_prompts if found.prompts is None else found.prompts) or 0
    group = request.num_pre_q
    rows = f"{counted(prompts, 'prompt')} x {spelling.name('num_pre_q')} {group} = {prompts * group} rows"
    given = prompt_field(request)
    lead = (
        "must fill every device alike" if given == "prompt_batch_size" else "must fill every device of a process alike"
    )
    return f"{lead}: {rows} over {_shards(request, found)}"


def _shards(request: BatchRequest, found: Judgement) -> str:
    """S in words: devices, or where tp spans several of them, data shards."""
    tp = found.mesh.tp if found.mesh else 1
    if tp == 1:
        return counted(found.shards, "device")
    return f"{counted(found.shards, 'data shard')} ({request.devices_per_process} devices / tp {tp})"


def _whole_passes(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    prompts, processes = found.prompts or 0, request.processes
    per_device = prompt_field(request) == "per_device_batch_size"
    times = f"x {request.devices_per_process} devices = {prompts} prompts per process " if per_device else ""
    over = f" x {processes} processes = {prompts * processes}" if processes > 1 else ""
    return (
        f"{times}must make whole passes of the {found.prompts_per_step} prompts of a step "
        f"({spelling.name('batch_size')} {request.batch_size} / {spelling.name('num_pre_q')} {request.num_pre_q}), "
        f"which {prompts}{over} does not divide"
    )


def _micro_per_device(request: BatchRequest, found: Judgement) -> str:
    if micro_field(request) == "micro_batch_size":
        return ""
    return f"x {request.devices_per_process} devices = {found.micro} "


def _local(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    """The sequences of a process, with where they come from."""
    prompts, group = (found.prompts or 0) * (found.passes or 0), request.num_pre_q
    product = f"{counted(prompts, 'prompt')} x {spelling.name('num_pre_q')} {group}"
    return f"the {counted(found.local, 'sequence')} of a process ({product})"


def _micro_over_batch(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    return f"{_micro_per_device(request, found)}must divide {_local(request, found, spelling)}"


def _micro_over_shards(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    return f"{_micro_per_device(request, found)}must be a multiple of the {_shards(request, found)} of a process"


def _accumulation(request: BatchRequest, found: Judgement, spelling: Spelling) -> str:
    local = _local(request, found, spelling)
    if not found.micro_left_out:
        name = spelling.name(micro_field(request))
        each = f"{name} {getattr(request, micro_field(request))}{_times(request)}"
        return f"must be {(found.local or 0) // (found.micro or 1)}: {local} / {each}"
    return (
        f"must divide {local} into parts that fill {_shards(request, found)} alike"
        if found.shards
        else (f"must divide {local}")
    )


def _times(request: BatchRequest) -> str:
    per_device = micro_field(request) == "per_device_micro_batch_size"
    return f" x {request.devices_per_process} devices" if per_device else ""


_STATEMENTS: dict[str, Callable[[BatchRequest, Judgement, Spelling], str]] = {
    "mesh": lambda request, found, spelling: found.mesh_fault,
    "mesh-over-slices": _mesh_over_slices,
    "group": _group,
    "some-size": _some_size,
    "one-prompt-size": _one_prompt_size,
    "batch-of-groups": _batch_of_groups,
    "prompts-over-processes": _prompts_over_processes,
    "rows-over-devices": _rows_over_devices,
    "whole-passes": _whole_passes,
    "one-micro-size": _one_micro_size,
    "micro-over-batch": _micro_over_batch,
    "micro-over-shards": _micro_over_shards,
    "accumulation": _accumulation,
}


def rounding_warnings(request: BatchRequest, found: Judgement, spelling: Spelling) -> tuple[Violation, ...]:
    """One warning for each number of the user that rounding replaced: the requested and the effective one."""
    warnings = []
    effective = (found.local or 0) * request.processes
    asked, prompts = found.requested_prompts, found.prompts
    if request.batch_size is not None and effective != request.batch_size:
        passes = f"{counted(found.passes, 'pass', 'es')} of {counted(prompts, 'prompt')}"
        times = f"{counted(request.processes, 'process', 'es')} x {spelling.name('num_pre_q')} {request.num_pre_q}"
        message = f"{request.batch_size} was rounded up to {effective}: {passes} x {times}"
        rule = found.rounded[-1]
        warnings.append(Violation(rule, spelling.path(PATHS["batch_size"]), request.batch_size, message))
    if asked is not None and prompts != asked:
        message = f"{asked} was rounded up to {prompts}, so that its rows fill {_shards(request, found)} alike"
        path = spelling.path(PATHS["prompt_batch_size"])
        warnings.append(Violation("rows-over-devices", path, asked, message))
    return tuple(warnings)
