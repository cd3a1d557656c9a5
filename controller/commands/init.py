"""`grpoctl init`: the commented job of `controller/data/job.yaml`, written or printed."""

from importlib.resources import files
from pathlib import Path

import click


@click.command
@click.argument("file", default="job.yaml", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def init(file: Path, force: bool) -> None:
    """Write a commented job to FILE, to start from; `-` prints it."""
    text = files("controller").joinpath("data/job.yaml").read_text(encoding="utf-8")
    if str(file) == "-":
        click.echo(text, nl=False)
        return
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists; name another file, or overwrite it with --force")
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written: {error.strerror}") from error
    click.echo(f"wrote {file}; next: grpoctl validate {file}")
