"""`grpoctl suspend`: jobs give their machines back, and keep their place in the run."""

import click

from controller.commands.clusterside import ClusterCommand, cluster_options, jobs_options
from controller.commands.switching import switch
from controller.plugin.connecting import Session

HELP = """Suspend jobs: their pods save a checkpoint and go. `resume` makes them again, from that checkpoint.

Jobs that are suspended already, or have ended, are left as they are.
"""


@click.command(cls=ClusterCommand, help=HELP)
@jobs_options
@cluster_options()
def suspend(session: Session, names: tuple[str, ...], selector: str | None, take_all: bool) -> None:
    """Set `spec.suspend`."""
    switch(session, names, selector, take_all, suspend=True)
