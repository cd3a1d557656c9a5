"""`grpoctl watch`: jobs as they change."""

import sys

import click
from rich.live import Live

from controller.commands.clusterside import ClusterCommand, cluster_options, console, show
from controller.commands.jobrows import COLUMNS, row
from controller.commands.screen import screen_of
from controller.plugin import jobs
from controller.plugin.connecting import Session
from controller.plugin.trouble import Exit, Trouble
from controller.plugin.whole import whole

HELP = """Follow JOB to its end: on a terminal its screen, drawn anew, elsewhere a line for each change.

The exit code is that of `wait`. Without JOB: a line for each change of any job, until Ctrl-C.
"""


@click.command(cls=ClusterCommand, help=HELP)
@click.argument("job", required=False)
@click.option("-l", "--selector", help="Without JOB: only jobs with these labels.")
@cluster_options(everywhere=True)
@click.pass_context
def watch(ctx: click.Context, session: Session, job: str | None, selector: str | None) -> None:
    """The cluster is asked for what changes, not again and again."""
    if job is None:
        jobs.every(session, selector)
        _print_changes(session, None, selector)
    elif session.namespace is None:
        raise Trouble("-A follows all jobs; leave it out, or leave out JOB", Exit.USAGE)
    else:
        found = jobs.one(session, job)
        last = _draw(session, found) if sys.stdout.isatty() else _print_changes(session, job, None)
        if last is None:
            raise Trouble(f"{job} was deleted before it ended", Exit.FAILED)
        ctx.exit(Exit.DONE if jobs.phase_of(last) == "Succeeded" else Exit.FAILED)


def _print_changes(session: Session, name: str | None, selector: str | None) -> jobs.Body | None:
    """A line where a cell other than the age has changed; the columns are as wide as their heads."""
    shown: dict[str, tuple[str, ...]] = {}
    space = session.namespace is None
    click.echo(_line(("NAMESPACE", *COLUMNS) if space else COLUMNS))
    last: jobs.Body | None = None
    for now in jobs.snapshots(session, name, selector):
        for key in sorted(now):
            cells = row(now[key])
            if shown.get(key) != cells[:-1]:
                shown[key] = cells[:-1]
                click.echo(_line((key.partition("/")[0], *cells) if space else cells))
        for key in [key for key in shown if key not in now]:
            del shown[key]
            click.echo(f"{key.partition('/')[2]} was deleted")
        if name is not None:
            last = next(iter(now.values()), None)
            if last is None or jobs.is_over(last):
                return last
    return last


def _line(cells: tuple[str, ...]) -> str:
    widths = {"NAME": 24, "NAMESPACE": 16}
    heads = ("NAMESPACE", *COLUMNS) if len(cells) > len(COLUMNS) else COLUMNS
    return "  ".join(cell.ljust(widths.get(head, 11)) for head, cell in zip(heads, cells, strict=True)).rstrip()


def _draw(session: Session, job: jobs.Body) -> jobs.Body | None:
    last: jobs.Body | None = job
    with Live(console=console(), auto_refresh=False, transient=True) as live:
        for now in jobs.snapshots(session, job["metadata"]["name"]):
            last = next(iter(now.values()), None)
            if last is None or jobs.is_over(last):
                break
            live.update(screen_of(whole(session, last)), refresh=True)
    if last is not None:
        show(screen_of(whole(session, last)))
    return last
