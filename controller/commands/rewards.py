"""`grpoctl rewards try`: a job's rewards on sample rows, without a model; the trainer scores them, as a subprocess."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from controller.commands.documents import Judged, file_argument, judge_files, set_option
from controller.commands.findings import echo_findings, heading
from controller.grpojob import Override


@click.group
def rewards() -> None:
    """Try a job's rewards without a model."""


HELP = """Score sample rows of the job's training data with each of its rewards. No model is loaded.

A reward that cannot be imported, or that gives everything the same score, is seen before chips are paid for.
"""


@rewards.command("try", help=HELP)
@file_argument
@set_option
@click.option("--rows", type=click.IntRange(1), default=4, help="How many rows of the training data.")
@click.option("--code", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder for spec.code.")
@click.pass_context
def try_rewards(ctx: click.Context, file: str, overrides: Sequence[Override], rows: int, code: Path | None) -> None:
    """Write the RunConfig of the job to a file, and hand it to the trainer."""
    documents = judge_files([file], overrides, one_machine=True)
    document = next(document for document in documents if document.other is None)
    if document.resolved is None:
        click.echo(heading(document, documents), err=True)
        echo_findings(document, err=True)
        ctx.exit(1)
    with tempfile.TemporaryDirectory(prefix="grpoctl-rewards-") as folder:
        run_config = Path(folder) / "run.json"
        run_config.write_text(document.resolved.run.to_json(), encoding="utf-8")
        source = code or _code_of(document, documents, Path(folder) / "code")
        command = [sys.executable, "-m", "trainer", "--rewards-try", str(run_config), "--rows", str(rows)]
        ctx.exit(subprocess.run(command, env=_environment(source), check=False).returncode)


def _code_of(document: Judged, documents: Sequence[Judged], folder: Path) -> Path | None:
    """The files of `spec.code.configMap`, where that ConfigMap stands in the same file."""
    code = document.job.spec.code if document.job is not None else None
    if code is None or code.config_map is None:
        return None
    for found in documents:
        if found.other is not None and found.other.get("kind") == "ConfigMap" and found.name == code.config_map:
            folder.mkdir()
            for name, text in _data(found.other).items():
                (folder / name).write_text(str(text), encoding="utf-8")
            return folder
    raise click.UsageError(
        f"spec.code.configMap: {code.config_map} is not in the same file; give the folder of its files with --code"
    )


def _data(config_map: Mapping[str, Any]) -> Mapping[str, Any]:
    data: Mapping[str, Any] = config_map.get("data") or {}
    return data


def _environment(code: Path | None) -> dict[str, str]:
    path = os.pathsep.join(part for part in (str(code or ""), os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
