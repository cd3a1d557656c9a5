"""`grpoctl resume`: suspended jobs go on."""

import click

from controller.commands.clusterside import ClusterCommand, cluster_options, jobs_options
from controller.commands.switching import switch
from controller.plugin.connecting import Session

HELP = """Let suspended jobs go on from their last checkpoint; a job with a queue queues again."""


@click.command(cls=ClusterCommand, help=HELP)
@jobs_options
@cluster_options()
def resume(session: Session, names: tuple[str, ...], selector: str | None, take_all: bool) -> None:
    """Unset `spec.suspend`."""
    switch(session, names, selector, take_all, suspend=False)
