"""`grpoctl diff`: in what two jobs differ, of the cluster or of files."""

from pathlib import Path

import click

from controller.commands.clusterside import ClusterCommand, cluster_options, output_option, show, show_data
from controller.commands.documents import judge_files
from controller.commands.jobrows import table_of
from controller.grpojob import GRPOJob, read_job
from controller.plugin import jobs
from controller.plugin.connecting import Session
from controller.plugin.differing import Difference, differences
from controller.plugin.trouble import Exit, Trouble
from trainer.contract.violations import shown

HELP = """Show in what two jobs differ. A and B are jobs of the cluster, or files.

\b
  kubectl grpo diff demo demo-lr2
  kubectl grpo diff job.yaml demo

What was left out counts as its default. The exit code is 0 where nothing differs, and 1 where something does.
With -o json or yaml: a list of {path, a, b}.
"""


@click.command(cls=ClusterCommand, help=HELP)
@click.argument("a")
@click.argument("b")
@cluster_options()
@output_option
@click.pass_context
def diff(ctx: click.Context, session: Session, a: str, b: str, output: str) -> None:
    """Only specifications are compared."""
    found = differences(_read(session, a), _read(session, b))
    if output != "text":
        show_data([{"path": path, "a": first, "b": second} for path, first, second in found], output)
    elif found:
        show(table_of(("KEY", a, b), [_cells(one) for one in found]))
    else:
        click.echo(f"{a} and {b} have the same specification", err=True)
    ctx.exit(Exit.FAILED if found else Exit.DONE)


def _cells(one: Difference) -> tuple[str, str, str]:
    first, second = ("" if value is None else shown(value) for value in (one.first, one.second))
    return one.path, first, second


def _read(session: Session, what: str) -> GRPOJob:
    """A file where there is one of this name, else a job of the cluster."""
    if not Path(what).is_file():
        return read_job(jobs.one(session, what))
    found = [document for document in judge_files([what], ()) if document.other is None]
    if len(found) != 1 or found[0].job is None:
        raise Trouble(f"{what} is no file with one GRPOJob; `grpoctl validate {what}` tells more", Exit.USAGE)
    return found[0].job
