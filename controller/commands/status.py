"""`grpoctl status`: one job on one screen."""

import click

from controller.commands.clusterside import ClusterCommand, bare, cluster_options, output_option, show, show_data
from controller.commands.screen import screen_of
from controller.plugin import jobs
from controller.plugin.connecting import Session
from controller.plugin.whole import whole

HELP = """Show how a job stands: plan, progress, attempts, conditions, pods and events on one screen.

With -o json or yaml: {job, pods, events, hidden}; hidden says what you may not read.
"""


@click.command(cls=ClusterCommand, help=HELP)
@click.argument("job")
@cluster_options()
@output_option
def status(session: Session, job: str, output: str) -> None:
    """Conditions that say that nothing is the matter are left out of the text."""
    found = whole(session, bare(jobs.one(session, job)))
    if output == "text":
        show(screen_of(found))
    else:
        show_data(found.as_dict(), output)
