"""What `suspend` and `resume` share: `spec.suspend` of many jobs, and a line for each."""

from collections.abc import Sequence

import click

from controller.cluster.resources import GRPOJOBS
from controller.plugin import jobs
from controller.plugin.connecting import MANAGER, Session


def switch(session: Session, names: Sequence[str], selector: str | None, take_all: bool, *, suspend: bool) -> None:
    done = "suspended" if suspend else "resumed"
    for job in jobs.chosen(session, names, selector, take_all):
        name, is_so = job["metadata"]["name"], bool(job["spec"].get("suspend"))
        if jobs.is_over(job):
            click.echo(f"{name} has ended ({jobs.phase_of(job)}), left as it is")
        elif is_so == suspend:
            click.echo(f"{name} is {'suspended' if suspend else 'not suspended'} already")
        else:
            body = {"spec": {"suspend": suspend}}
            session.api.patch(GRPOJOBS, name, job["metadata"]["namespace"], body, manager=MANAGER)
            click.echo(f"{name} {done}")
