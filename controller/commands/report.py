"""`grpoctl report`: one HTML page about a run, or two laid over one another; the trainer writes it, as a subprocess."""

import subprocess
import sys
from pathlib import Path

import click

HELP = """Write one HTML page about a run: curves, times, completions, configuration. A second run is laid over it.

RUN is a run folder, such as runs/NAME-RUNID or gs://BUCKET/PATH/NAME-RUNID. The page needs no
network, and a run that still goes on has one too.
"""


@click.command(help=HELP)
@click.argument("run")
@click.argument("run2", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page.  [default: RUN/report.html]")
@click.pass_context
def report(ctx: click.Context, run: str, run2: str | None, output: Path | None) -> None:
    """Start `python -m trainer report`, whose words and exit code are ours."""
    runs = [folder for folder in (run, run2) if folder is not None]
    command = [sys.executable, "-m", "trainer", "report", *(["-o", str(output)] if output else []), "--", *runs]
    ctx.exit(subprocess.run(command, check=False).returncode)
