"""Jobs of a cluster where a command takes run folders: loaded only when a job is named."""

from collections.abc import Sequence

import click

from controller.commands.clusterside import connected, telling
from controller.plugin import jobs, runfolders


def folders_of(
    ctx: click.Context,
    runs: Sequence[tuple[str, bool]],
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    output_uri: str | None,
) -> list[str]:
    """Each run as an address; `runs` say whether they are jobs."""
    with telling(ctx):
        session = connected(ctx, kubeconfig, context, namespace)
        return [runfolders.address(jobs.one(session, run), output_uri) if is_job else run for run, is_job in runs]
