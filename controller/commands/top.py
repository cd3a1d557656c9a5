"""`grpoctl top`: who uses the chips, and what comes of it."""

import time

import click

from controller.commands.clusterside import ClusterCommand, cluster_options, console, output_option, show, show_data
from controller.commands.jobrows import table_of
from controller.plugin import jobs, usage
from controller.plugin.connecting import Session

HELP = """Show the jobs that hold machines, the largest first: chips, tokens per second, step, reward, time left.

With --every the table is drawn anew until Ctrl-C. With -o json or yaml: a list with one object a job,
{namespace, name, phase, devices, tokensPerSecondPerChip, tokensPerSecond, step, totalSteps, rewardMean, eta}.
"""
COLUMNS = ("JOB", "PHASE", "CHIPS", "TOKENS/S", "PER CHIP", "STEP", "REWARD", "ETA")


@click.command(cls=ClusterCommand, help=HELP)
@click.option("-l", "--selector", help="Only jobs with these labels, such as team=a.")
@click.option("--every", type=click.FloatRange(min=0.5), metavar="SECONDS", help="Draw it again so often.")
@cluster_options(everywhere=True)
@output_option
def top(session: Session, selector: str | None, every: float | None, output: str) -> None:
    """A CPU device counts as a chip."""
    while True:
        rows = usage.usage_of(jobs.every(session, selector))
        if output != "text":
            show_data(rows, output)
        else:
            if every is not None:
                console().clear()
            _draw(session, rows)
        if every is None:
            return
        time.sleep(every)


def _draw(session: Session, rows: list[usage.Body]) -> None:
    if not rows:
        click.echo(f"no job holds a machine in {session.place}", err=True)
        return
    show(table_of(COLUMNS, [_cells(row, with_namespace=session.namespace is None) for row in rows]))
    chips, tokens = sum(row["devices"] for row in rows), sum(row["tokensPerSecond"] or 0 for row in rows)
    click.echo(f"{len(rows)} job{'s' * (len(rows) != 1)}, {chips} chips, {tokens:,.0f} tokens per second")


def _cells(row: usage.Body, *, with_namespace: bool) -> tuple[str, ...]:
    name = f"{row['namespace']}/{row['name']}" if with_namespace else row["name"]
    total, chip, reward = row["tokensPerSecond"], row["tokensPerSecondPerChip"], row["rewardMean"]
    step = "" if row["step"] is None else f"{row['step']}/{row['totalSteps']}"
    counted = ("" if value is None else f"{value:,.0f}" for value in (total, chip))
    shown = "" if reward is None else f"{reward:.4g}"
    return (name, row["phase"], str(row["devices"]), *counted, step, shown, row["eta"] or "")
