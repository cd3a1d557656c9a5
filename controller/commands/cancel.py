"""`grpoctl cancel`: jobs end and are deleted; their run folders stay."""

import click

from controller.cluster.resources import GRPOJOBS
from controller.commands.clusterside import ClusterCommand, cluster_options, jobs_options
from controller.plugin import jobs, runfolders
from controller.plugin.connecting import Session

HELP = """Delete jobs. Their pods may save a checkpoint first; what is in their run folder stays.

A job that may go on later is better suspended: `kubectl grpo suspend JOB`.
"""


@click.command(cls=ClusterCommand, help=HELP)
@jobs_options
@cluster_options()
def cancel(session: Session, names: tuple[str, ...], selector: str | None, take_all: bool) -> None:
    """In the foreground: the job is there until its pods are gone."""
    for job in jobs.chosen(session, names, selector, take_all):
        metadata = job["metadata"]
        session.api.delete(GRPOJOBS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        folder = runfolders.kept_in(job)
        click.echo(f"{metadata['name']} cancelled" + (f"; its run folder stays: {folder}" if folder else ""))
