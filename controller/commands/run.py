"""`grpoctl run`: a job's pods as processes of this machine."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from controller.commands.documents import Judged, file_argument, judge_files, set_option
from controller.commands.findings import echo_findings, heading
from controller.grpojob import Override
from controller.local import LocalError, Machine, run_job
from controller.local.replan import replan
from controller.resolve import Resolved
from trainer.contract.exits import ExitCode

HELP = """Run the GRPOJob of FILE on this machine.

The pods of its JobSet are started as processes, with the environment and the files that they would have in a cluster.

The same file run again resumes its run folder; --new-run starts afresh. Ctrl-C ends all processes. A job for TPUs runs
on CPU devices; with --processes or --devices-per-process its plan is made for fewer of them.

\b
Exit codes are the trainer's:
  0 done                      5 an input is not reachable   8 stalled
  1 failed                    6 out of memory               9 a process was lost
  2 invalid job, wrong usage  7 a number is not finite     10 stopped
"""


@click.command(help=HELP)
@file_argument
@set_option
@click.option("--code", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder for spec.code.")
@click.option("--new-run", is_flag=True, help="Start a run folder of its own instead of resuming.")
@click.option("--restarts", type=click.IntRange(0), default=0, help="How often a failed attempt is started again.")
@click.option("--processes", type=click.IntRange(1), help="Processes to run instead of the job's.")
@click.option("--devices-per-process", type=click.IntRange(1), help="CPU devices of each instead of the job's.")
@click.pass_context
def run(
    ctx: click.Context,
    file: str,
    overrides: Sequence[Override],
    code: Path | None,
    new_run: bool,
    restarts: int,
    processes: int | None,
    devices_per_process: int | None,
) -> None:
    """Judged as on one machine: all processes share one disk."""
    documents = judge_files([file], overrides, one_machine=True)
    document = _only_job(documents)
    resolved = document.resolved
    if resolved is None:
        click.echo(heading(document, documents), err=True)
        echo_findings(document, err=True)
        ctx.exit(ExitCode.INVALID_CONFIG)
    if processes or devices_per_process:
        resolved = _replanned(document, resolved, processes, devices_per_process)
    others = [found.other for found in documents if found.other is not None]
    machine = Machine.here(colour=sys.stdout.isatty() and ctx.color is not False)
    try:
        code_of_job = run_job(
            resolved, machine=machine, documents=others, code=code, new_run=new_run, restarts=restarts
        )
    except LocalError as error:
        click.echo(f"{click.style('cannot run here:', fg='red')} {error}", err=True)
        ctx.exit(ExitCode.INVALID_CONFIG)
    ctx.exit(code_of_job)


def _only_job(documents: Sequence[Judged]) -> Judged:
    jobs = [document for document in documents if document.other is None]
    if len(jobs) > 1:
        raise click.UsageError(f"{jobs[0].file} holds {len(jobs)} jobs; run takes a file with one")
    return jobs[0]


def _replanned(document: Judged, was: Resolved, processes: int | None, devices: int | None) -> Resolved:
    """The job on other devices; both plans are told, because the batch may have become another one."""
    assert document.job is not None  # noqa: S101 - it was resolved
    outcome = replan(document.job, was, processes, devices)
    click.echo(f"the job's plan: {was.run.batch.summary}", err=True)
    if outcome.resolved is None:
        click.echo("on these devices the job is invalid:", err=True)
        for violation in outcome.violations:
            click.echo(f"  {violation} [{violation.rule}]", err=True)
        click.get_current_context().exit(ExitCode.INVALID_CONFIG)
    click.echo(f"the plan here:  {outcome.resolved.run.batch.summary}", err=True)
    return outcome.resolved
