"""`grpoctl fetch`: what a run left in its folder, on this machine."""

from pathlib import Path

import click

from controller.commands.clusterside import ClusterCommand, cluster_options, run_folder_option
from controller.plugin import jobs, runfolders
from controller.plugin.connecting import Session
from controller.plugin.trouble import Exit

HELP = """Copy what the run of JOB left in its folder to FOLDER: metrics, completions, evaluations, logs, the export.

\b
  kubectl grpo fetch demo
  kubectl grpo fetch demo --only 'export/*' model/
  kubectl grpo fetch demo --list

Checkpoints, inputs and compiled programs are large, and left out unless --only names them or --all is given. Files that
are there with the same size are not copied again. With --list -o json or yaml: a list of {path, bytes}.
"""


@click.command(cls=ClusterCommand, help=HELP)
@click.argument("job")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="PATTERN", help="Only these, such as 'logs/*'. Repeatable.")
@click.option("--all", "everything", is_flag=True, help="Checkpoints, inputs and compiled programs too.")
@click.option("--list", "listed", is_flag=True, help="List the files, copy none.")
@click.option("-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", help="How --list prints.")
@run_folder_option
@cluster_options()
@click.pass_context
def fetch(
    ctx: click.Context,
    session: Session,
    job: str,
    folder: Path | None,
    only: tuple[str, ...],
    everything: bool,
    listed: bool,
    output: str,
    output_uri: str | None,
) -> None:
    """FOLDER is by default the run folder's name, here."""
    address = runfolders.address(jobs.one(session, job), output_uri)
    target = folder or Path(address.rpartition("/")[2])
    words = [word for pattern in only for word in ("--only", pattern)]
    words += ["--all"] * everything + (["--list", "--output", output] if listed else [str(target)])
    ctx.exit(Exit.DONE if runfolders.read("fetch", address, *words) == 0 else Exit.FAILED)
