"""Files and `--set` in, judged documents out: what `validate`, `plan`, `render` and `run` share. Prints nothing."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from controller.grpojob import GRPOJob, Override, ReadDocument, read_jobs
from controller.resolve import Outcome, Resolved, resolve
from trainer.contract.documents import load_documents
from trainer.contract.violations import Violation

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Judged:
    """One document of a file and what the rules say of it; `document` counts from 0, as YAML streams do.

    `body` is a job's object with each `--set` laid over it.
    """

    file: str
    document: int
    name: str | None
    job: GRPOJob | None
    other: Mapping[str, Any] | None
    resolved: Resolved | None
    violations: tuple[Violation, ...]
    warnings: tuple[Violation, ...]
    body: Mapping[str, Any] | None = None

    @property
    def valid(self) -> bool:
        return not self.violations


class _Assignment(click.ParamType[Override]):
    """`PATH=VALUE`: a path below spec, and a value that is read as YAML."""

    name = "path=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Override:
        if isinstance(value, Override):
            return value
        path, equals, written = str(value).partition("=")
        steps = re.sub(r"\[([0-9]+)\]", r".\1", path.strip()).split(".")
        keys = tuple(int(step) if re.fullmatch("[0-9]+", step) else step for step in steps)
        if not equals or not all(key != "" for key in keys):
            self.fail(f"{value!r} is no assignment; write rollout.batchSize=96", param, ctx)
        documents = load_documents(written, path)
        if faults := [violation for document in documents for violation in document.violations]:
            self.fail(f"the value is {faults[0].message}", param, ctx)
        return Override(path, keys, documents[0].data if documents else None)


FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)
files_argument = click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
file_argument = click.argument("file", type=FILE)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    type=_Assignment(),
    metavar="PATH=VALUE",
    help="Lay a value over the file, such as rollout.batchSize=96: a path below spec, and YAML. Repeatable.",
)


def judge_files(files: Sequence[str], overrides: Sequence[Override], *, one_machine: bool = False) -> list[Judged]:
    """Every document of every file, in order; `-` is standard input."""
    if list(files).count(STDIN) > 1:
        raise click.UsageError("standard input can be read once only")
    return [judged for file in files for judged in _judge_file(file, overrides, one_machine)]


def _judge_file(file: str, overrides: Sequence[Override], one_machine: bool) -> list[Judged]:
    source = "<stdin>" if file == STDIN else file
    try:
        raw = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"{source}:{line}: not UTF-8 text; save the file as UTF-8"
        return [Judged(file, 0, None, None, None, None, (Violation("yaml", "", None, message),), ())]
    return judge_text(text, file, source, overrides, one_machine=one_machine)


def judge_text(
    text: str, file: str, source: str, overrides: Sequence[Override], *, one_machine: bool = False
) -> list[Judged]:
    """Every document of a YAML text; `source` names it in errors."""
    return [_judge(file, document, one_machine) for document in read_jobs(text, source, overrides)]


def _judge(file: str, read: ReadDocument, one_machine: bool) -> Judged:
    outcome = Outcome(None, None, read.violations, ())
    if read.job is not None:
        outcome = resolve(read.job, one_machine=one_machine)
    return Judged(
        file=file,
        document=read.index,
        name=read.name,
        job=read.job,
        other=read.other,
        resolved=outcome.resolved,
        violations=outcome.violations,
        warnings=outcome.warnings,
        body=read.body,
    )
