"""Printing what a configuration means, without JAX and on any platform: the merged tree, and the plan of a machine.

In: a command line, or the text of a runner YAML and `--set` assignments. Out: what goes to stdout and stderr, and the
exit code. Refuses to know streams and anything of the trainer but its contract.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.contract.batch import BatchPlan
from trainer.contract.exits import ExitCode
from trainer.contract.run import READABLE_VERSIONS, Machine, resolve_run
from trainer.contract.runner import dump_yaml, merge
from trainer.contract.violations import Spelling, Violation

MAX_COUNT = 2**20


@dataclass(frozen=True, slots=True)
class Printed:
    """Text for the two streams, each ending in a newline where it is not empty, and the exit code."""

    out: str
    err: str
    code: ExitCode


ANSWERS = ("--print-config", "--print-plan", "--contract-version")
"""The options that make a command line a question, which is answered here."""


def answer(argv: Sequence[str]) -> Printed:
    """Answer a command line that holds one of `ANSWERS`. Raises SystemExit on wrong usage, as argparse does."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.contract_version:
        return Printed("".join(f"{version}\n" for version in READABLE_VERSIONS), "", ExitCode.DONE)
    source = str(arguments.config)
    try:
        text = None if arguments.config is None else arguments.config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return Printed("", f"{source}: cannot be read: {reason}; name a runner YAML\n", ExitCode.INVALID_CONFIG)
    if arguments.print_config:
        return print_config(text, arguments.set, source)
    if arguments.processes is None or arguments.devices_per_process is None:
        parser.error("--print-plan needs --processes and --devices-per-process")
    counts = (arguments.processes, arguments.devices_per_process)
    return print_plan(text, arguments.set, *counts, output=arguments.output, source=source)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m trainer", allow_abbrev=False)
    question = parser.add_mutually_exclusive_group(required=True)
    question.add_argument("--print-config", action="store_true", help="the merged configuration as YAML")
    question.add_argument("--print-plan", action="store_true", help="the batch of one step on a machine")
    question.add_argument("--contract-version", action="store_true", help="the versions of run.json that are read")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a runner YAML; without it, the defaults")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="lay a value over the file")
    parser.add_argument("--processes", type=_count, metavar="P")
    parser.add_argument("--devices-per-process", type=_count, metavar="L")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1 to {MAX_COUNT}")
    return int(text)


def print_config(text: str | None, sets: Iterable[str], source: str = "config") -> Printed:
    """The merged tree as YAML. The file must be well-formed; a run may still refuse what its values mean together."""
    parsed = merge(text, sets, source)
    if parsed.violations:
        return Printed("", _lines(parsed.violations), ExitCode.INVALID_CONFIG)
    return Printed(dump_yaml(parsed.config), "", ExitCode.DONE)


def print_plan(
    text: str | None,
    sets: Iterable[str],
    processes: int,
    devices_per_process: int,
    *,
    output: Literal["text", "json"] = "text",
    source: str = "config",
) -> Printed:
    """The batch of one step on a machine of one slice. It needs no model; every other rule of a run applies."""
    machine = Machine(processes, devices_per_process, hosts=processes, slices=1, kind="tpu")
    resolution = resolve_run(merge(text, sets, source), machine, "plan", Spelling.RUNNER)
    violations = [found for found in resolution.violations if (found.rule, found.path) != ("required", "model_path")]
    warnings = _lines(resolution.warnings, "warning: ")
    if violations or resolution.plan is None:
        out = json.dumps({"violations": [found.as_dict() for found in violations]}, indent=2) + "\n"
        return Printed(out if output == "json" else "", _lines(violations), ExitCode.INVALID_CONFIG)
    plan = resolution.plan
    out = json.dumps(plan.as_dict(), indent=2) + "\n" if output == "json" else plan_table(plan)
    return Printed(out, warnings, ExitCode.DONE)


def _lines(found: Sequence[Violation], prefix: str = "") -> str:
    return "".join(f"{prefix}{violation}\n" for violation in found)


def plan_table(plan: BatchPlan) -> str:
    """The plan for people: one count a line with what it counts, and the sentence that ties them."""
    mesh = plan.mesh
    rows = (
        ("processes", plan.processes, f"{plan.slices} slice{'s' * (plan.slices > 1)} x {plan.hosts} hosts"),
        ("devices per process", plan.devices_per_process, ""),
        ("mesh", f"{mesh.dp},{mesh.fsdp},{mesh.tp}", "dp,fsdp,tp"),
        ("group size", plan.group_size, "completions per prompt"),
        ("sequences per step", plan.sequences_per_step, "over all processes"),
        ("prompts per step", plan.prompts_per_step, "over all processes"),
        ("prompts per pass", plan.prompts_per_pass_per_process, "per process"),
        ("passes", plan.passes, "per step"),
        ("sequences per process", plan.sequences_per_process, "per step"),
        ("sequences per micro-step", plan.sequences_per_micro_step, "per process"),
        ("micro-steps", plan.micro_steps, "per step"),
    )
    names, counts = max(len(name) for name, _, _ in rows), max(len(str(count)) for _, count, _ in rows)
    lines = [f"{name:<{names}}  {count!s:>{counts}}  {note}".rstrip() for name, count, note in rows]
    return "\n".join([*lines, "", plan.summary]) + "\n"
