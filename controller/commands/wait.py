"""`grpoctl wait`: until jobs have ended; the exit code is theirs."""

import math
import time

import click

from controller.commands.clusterside import (
    ClusterCommand,
    as_list,
    cluster_options,
    jobs_options,
    output_option,
    show_data,
)
from controller.commands.jobrows import plain
from controller.plugin import jobs
from controller.plugin.connecting import Session
from controller.plugin.trouble import Exit, Trouble
from controller.runtime.store import key_of

HELP = """Wait until jobs have ended. The exit code is 0 where all succeeded, and 1 where one failed or was deleted.

\b
  kubectl grpo wait demo && kubectl grpo report demo
  kubectl grpo wait --all --timeout 3600

After --timeout seconds it is 124. With -o json or yaml the jobs are printed as they ended.
"""


@click.command(cls=ClusterCommand, help=HELP)
@jobs_options
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds to wait.  [default: for ever]")
@cluster_options()
@output_option
@click.pass_context
def wait(
    ctx: click.Context,
    session: Session,
    names: tuple[str, ...],
    selector: str | None,
    take_all: bool,
    timeout: float | None,
    output: str,
) -> None:
    """One line for each job as it ends."""
    until = math.inf if timeout is None else time.monotonic() + timeout
    waited = {key_of(job): job for job in jobs.chosen(session, names, selector, take_all)}
    ended: dict[str, jobs.Body | None] = {}
    if (count := sum(not jobs.is_over(job) for job in waited.values())) > 0:
        click.echo(f"waiting for {count} job{'s' * (count != 1)}", err=True)
    for now in jobs.snapshots(session, names[0] if len(waited) == 1 and names else None, selector, until):
        for key in [key for key in waited if key not in ended]:
            body = now.get(key)
            same = body is not None and body["metadata"]["uid"] == waited[key]["metadata"]["uid"]
            if not same or (body is not None and jobs.is_over(body)):
                ended[key] = body if same else None
                click.echo(_line(waited[key], ended[key]), err=output != "text")
        if len(ended) == len(waited):
            break
    if len(ended) < len(waited):
        missing = ", ".join(key.partition("/")[2] for key in waited if key not in ended)
        raise Trouble(f"not ended after {timeout:g} s: {missing}", Exit.LATE)
    if output != "text":
        show_data(as_list([body for body in ended.values() if body is not None]), output)
    succeeded = all(body is not None and jobs.phase_of(body) == "Succeeded" for body in ended.values())
    ctx.exit(Exit.DONE if succeeded else Exit.FAILED)


def _line(job: jobs.Body, ended: jobs.Body | None) -> str:
    name = job["metadata"]["name"]
    if ended is None:
        return f"{name} was deleted before it ended"
    phase = jobs.phase_of(ended)
    colour = "green" if phase == "Succeeded" else "red"
    return f"{name} {click.style(phase.lower(), fg=colour)}: {plain(jobs.told_of_end(ended))}"
