"""`grpoctl logs`: what one process of a job says, from its pod, or from the run folder when the pod is gone."""

import sys
from collections.abc import Iterable

import click

from controller.commands.clusterside import ClusterCommand, cluster_options, run_folder_option
from controller.commands.jobrows import plain
from controller.plugin import jobs, podlogs, runfolders
from controller.plugin.connecting import Session
from controller.plugin.podlogs import Place
from controller.plugin.trouble import Exit, Trouble
from controller.plugin.whole import Worker
from trainer.contract.runfolder import RunFolder

HELP = """Print what process 0 of JOB says, or that of another slice and host: of its newest attempt, or of --attempt.

With -f the log is followed to the end of the job, over restarts, suspensions and a cluster that is away for a while.
Where the pod is gone the log is read from the run folder.
"""


@click.command(cls=ClusterCommand, help=HELP)
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on to the end of the job, or of --attempt.")
@click.option("--slice", "slice_index", type=click.IntRange(0), default=0, help="The slice, from 0.")
@click.option("--host", type=click.IntRange(0), default=0, help="The host in the slice, from 0.")
@click.option("--attempt", type=click.IntRange(0), help="The attempt, from 0.  [default: the newest]")
@click.option("--tail", type=click.IntRange(0), metavar="LINES", help="Only the last lines.")
@run_folder_option
@cluster_options()
@click.pass_context
def logs(
    ctx: click.Context,
    session: Session,
    job: str,
    follow: bool,
    slice_index: int,
    host: int,
    attempt: int | None,
    tail: int | None,
    output_uri: str | None,
) -> None:
    """Lines go to standard output, everything else to the error stream."""
    body, place = jobs.one(session, job), Place(slice_index, host)
    process = place.process(body)
    worker = podlogs.newest(session, body, place, attempt)
    if worker is None and (jobs.is_over(body) or not follow):
        ctx.exit(_from_run_folder(body, process, attempt, tail, output_uri))
    if follow:
        _print(podlogs.followed(session, body, place, attempt, tail, _begins, _Waiting()))
        click.echo(f"{job}: {plain(jobs.told_of_end(jobs.same(session, body)))}", err=True)
    elif worker is not None:
        _print(podlogs.printed(session, body, worker, tail))


def _print(lines: Iterable[bytes]) -> None:
    for line in lines:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


def _begins(worker: Worker) -> None:
    click.echo(click.style(f"--- attempt {worker.attempt}, {worker.pod.name} ---", dim=True), err=True)


class _Waiting:
    """Says why nothing comes, once for each reason."""

    def __init__(self) -> None:
        self._told = ""

    def __call__(self, job: jobs.Body) -> None:
        phase = jobs.phase_of(job)
        if phase not in (self._told, "Running"):
            self._told = phase
            click.echo(click.style(f"--- {job['metadata']['name']} is {phase} ---", dim=True), err=True)


def _from_run_folder(job: jobs.Body, process: int, attempt: int | None, tail: int | None, uri: str | None) -> int:
    try:
        folder = runfolders.address(job, uri)
    except Trouble as trouble:
        named = "" if attempt is None else f" of attempt {attempt}"
        now = "" if jobs.is_over(job) else f" (it is {jobs.phase_of(job)}, and -f waits for one)"
        raise Trouble(f"no pod{named} is there{now}, and {trouble.message}", trouble.code) from None
    click.echo(click.style(f"--- the pod is gone; from {folder} ---", dim=True), err=True)
    which = "attempt-*" if attempt is None else f"attempt-{attempt}"
    pattern = RunFolder("").log(0, process).lstrip("/").replace("attempt-0", which)
    code = runfolders.read("fetch", folder, "--print", pattern, *(["--tail", str(tail)] if tail is not None else []))
    return Exit.DONE if code == 0 else Exit.FAILED
