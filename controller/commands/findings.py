"""Judged documents in, lines or JSON out. Colour is click's affair: none where the output is no terminal."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from controller.commands.documents import STDIN, Judged
from controller.tpu import CpuHosts, TpuSlice
from trainer.contract.violations import Violation

SERVER = "server"
"""The rule of what a cluster has against a job: no rule of ours, and nothing explains it but the cluster."""

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Lines for people, or JSON for programs.",
)


def exit_code(documents: Iterable[Judged]) -> int:
    """0 where all are valid, else 1."""
    return 0 if all(document.valid for document in documents) else 1


def echo_json(documents: Iterable[Judged]) -> None:
    """A list with one object a document, in order."""
    click.echo(json.dumps([_as_dict(document) for document in documents], indent=2, default=str))


def _as_dict(document: Judged) -> dict[str, Any]:
    return {
        "file": document.file,
        "document": document.document,
        "name": document.name,
        "valid": document.valid,
        "violations": [violation.as_dict() for violation in document.violations],
        "warnings": [warning.as_dict() for warning in document.warnings],
        "plan": document.resolved.run.batch.as_dict() if document.resolved else None,
    }


def echo_text(documents: Sequence[Judged]) -> None:
    """A heading, and below it what is wrong or worth knowing, for each document."""
    for document in documents:
        click.echo(heading(document, documents))
        echo_findings(document)
    rules = sorted({violation.rule for document in documents for violation in document.violations} - {SERVER})
    if rules:
        example = rules[0] if len(rules) == 1 else "RULE"
        click.echo(f"\nwhy a rule exists: grpoctl explain {example}")


def echo_findings(document: Judged, *, err: bool = False) -> None:
    for violation in document.violations:
        click.echo(_line(violation, "red"), err=err)
    for warning in document.warnings:
        click.echo(_line(warning, "yellow", "warning: "), err=err)


def _line(violation: Violation, colour: str, prefix: str = "") -> str:
    path = click.style(f"{violation.path}:", fg=colour, bold=True) + " " if violation.path else ""
    rule = click.style(f"[{violation.rule}]", dim=True)
    return f"  {click.style(prefix, fg=colour)}{path}{violation.message} {rule}"


def label(document: Judged, documents: Sequence[Judged]) -> str:
    """The file, the document's number where there are several, and the job's name."""
    several = sum(other.file == document.file for other in documents) > 1
    number = f", document {document.document}" if several else ""
    file = "<stdin>" if document.file == STDIN else document.file
    return f"{file}{number}" + (f" ({document.name})" if document.name else "")


def heading(document: Judged, documents: Sequence[Judged]) -> str:
    """The label, the verdict, and for a valid job its machine and its step in a sentence."""
    name = click.style(label(document, documents), bold=True)
    if document.other is not None:
        return f"{name}: {document.other['kind']}, passed over"
    if document.resolved is not None:
        verdict = click.style("valid", fg="green", bold=True)
        return f"{name}: {verdict}\n  {devices_of(document)}\n  {document.resolved.run.batch.summary}"
    count = len(document.violations)
    verdict = click.style(f"invalid, {count} violation{'s' * (count > 1)}", fg="red", bold=True)
    return f"{name}: {verdict}"


def devices_of(document: Judged) -> str:
    """The machine in one line: `2 slices of tpu-v6e-slice 4x4 (ct6e-standard-4t): 8 hosts with 4 devices each`."""
    assert document.resolved is not None  # noqa: S101 - asked of valid documents only
    resolved = document.resolved
    devices: TpuSlice | CpuHosts = resolved.devices
    hosts = devices.hosts * resolved.slices
    counted = f"{hosts} host{'s' * (hosts > 1)} with {_devices(devices.devices_per_process)} each"
    if isinstance(devices, CpuHosts):
        return f"CPU: {counted}"
    slices = f"{resolved.slices} slices of " if resolved.slices > 1 else ""
    return f"{slices}{devices.accelerator} {devices.topology} ({devices.machine_type}): {counted}"


def _devices(count: int) -> str:
    return f"{count} device{'s' * (count > 1)}"
