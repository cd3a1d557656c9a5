"""`grpoctl report`: one HTML page about a run, or two laid over one another; the trainer writes it, as a subprocess."""

import os
import subprocess
import sys
from pathlib import Path

import click

from controller.names import DNS_1035

HELP = """Write one HTML page about a run: curves, times, completions, configuration. A second run is laid over it.

RUN is a run folder, such as runs/NAME-RUNID or gs://BUCKET/PATH/NAME-RUNID, or a job of the cluster: a word that is no
folder here. The page needs no network, and a run that still goes on has one too.
"""


@click.command(help=HELP)
@click.argument("run")
@click.argument("run2", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page.  [default: RUN/report.html]")
@click.option("--kubeconfig", type=click.Path(dir_okay=False), help="For a job: as kubectl's.")
@click.option("--context", help="For a job: a context of the kubeconfig.")
@click.option("-n", "--namespace", help="For a job: its namespace.")
@click.option("--output-uri", metavar="URI", help="For a job: where its spec.output.uri is, seen from this machine.")
@click.pass_context
def report(ctx: click.Context, /, run: str, run2: str | None, output: Path | None, **where: str | None) -> None:
    """Start `python -m trainer report`, whose words and exit code are ours."""
    runs = [folder for folder in (run, run2) if folder is not None]
    if any(_is_job(one) for one in runs):
        from controller.commands.jobfolders import folders_of

        runs = folders_of(ctx, [(one, _is_job(one)) for one in runs], **where)
    command = [sys.executable, "-m", "trainer", "report", *(["-o", str(output)] if output else []), "--", *runs]
    ctx.exit(subprocess.run(command, check=False).returncode)


def _is_job(run: str) -> bool:
    """No path by its look, and nothing here has this name."""
    return os.sep not in run and "/" not in run and DNS_1035.fullmatch(run) is not None and not Path(run).exists()
