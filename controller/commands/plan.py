"""`grpoctl plan`: what a job resolves to, as numbers with the arithmetic that gives them."""

import sys
from collections.abc import Sequence

import click

from controller.commands.documents import Judged, files_argument, judge_files, set_option
from controller.commands.findings import echo_findings, echo_json, exit_code, heading, output_option
from controller.commands.planrows import Row, plan_groups
from controller.grpojob import Override

HELP = """Show what each GRPOJob of FILE... resolves to: hosts, devices, mesh, and the arithmetic of one step.

\b
Exit codes: 0 all are valid, 1 some are not, 2 wrong usage.
With -o json: the list of `grpoctl validate -o json`.
"""


@click.command(help=HELP)
@files_argument
@set_option
@output_option
@click.pass_context
def plan(ctx: click.Context, files: Sequence[str], overrides: Sequence[Override], output: str) -> None:
    """A table where the output is a terminal, plain columns elsewhere."""
    documents = judge_files(files, overrides)
    if output == "json":
        echo_json(documents)
    else:
        for document in documents:
            _show(document, documents)
    ctx.exit(exit_code(documents))


def _show(document: Judged, documents: Sequence[Judged]) -> None:
    click.echo(heading(document, documents))
    if document.resolved is not None:
        groups = plan_groups(document.resolved)
        if sys.stdout.isatty():
            _echo_table(groups, colour=click.get_current_context().color is not False)
        else:
            _echo_columns(groups)
    echo_findings(document)


def _echo_columns(groups: Sequence[Sequence[Row]]) -> None:
    rows = [row for group in groups for row in group]
    labels, values = max(len(row.label) for row in rows), max(len(row.value) for row in rows)
    for row in rows:
        click.echo(f"    {row.label.ljust(labels)}  {row.value.rjust(values)}  {row.how}")


def _echo_table(groups: Sequence[Sequence[Row]], colour: bool) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=SIMPLE)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", style="cyan", no_wrap=True)
    table.add_column(style="dim")
    for group in groups:
        for row in group:
            table.add_row(row.label, row.value, row.how)
        table.add_section()
    Console(highlight=False, color_system="auto" if colour else None).print(table)
