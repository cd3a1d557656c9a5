"""`grpoctl list`: the jobs of a namespace, or of all."""

import click

from controller.commands.clusterside import ClusterCommand, as_list, cluster_options, output_option, show, show_data
from controller.commands.jobrows import jobs_table
from controller.plugin import jobs
from controller.plugin.connecting import Session

HELP = """List jobs with phase, machine, step, reward, restarts, time left and age.

With -o json or yaml: a List of the jobs as the cluster holds them.
"""


@click.command("list", cls=ClusterCommand, help=HELP)
@click.option("-l", "--selector", help="Only jobs with these labels, such as team=a.")
@click.option("--phase", "phases", multiple=True, metavar="PHASE", help="Only jobs in this phase. Repeatable.")
@cluster_options(everywhere=True)
@output_option
def list_jobs(session: Session, selector: str | None, phases: tuple[str, ...], output: str) -> None:
    """In the order of namespace and name."""
    wanted = {phase.capitalize() for phase in phases}
    found = [job for job in jobs.every(session, selector) if not wanted or jobs.phase_of(job) in wanted]
    if output != "text":
        show_data(as_list(found), output)
    elif found:
        show(jobs_table(found, with_namespace=session.namespace is None))
    else:
        click.echo(f"no jobs in {session.place}", err=True)
