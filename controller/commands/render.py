"""`grpoctl render`: the manifests that the controller would apply."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from controller import render as station
from controller.commands.documents import Judged, files_argument, judge_files, set_option
from controller.commands.findings import echo_findings, heading
from controller.grpojob import Override
from controller.settings import Settings

HELP = """Print the ConfigMap and JobSet of each GRPOJob of FILE..., as the controller would apply them.

\b
  grpoctl render job.yaml | kubectl apply -f -
  grpoctl render -o dir --folder manifests job.yaml

The JobSet trains to the end without the operator, restarts included. Objects of other kinds, such as the ConfigMap of
spec.code, are passed on as they are.

Exit codes: 0 rendered, 1 a job is invalid (then nothing is printed), 2 wrong usage.
"""

FORMS = click.Choice(["yaml", "json", "dir"])


@click.command(help=HELP)
@files_argument
@set_option
@click.option("-o", "--output", type=FORMS, default="yaml", help="A YAML stream, a JSON List, or files.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("manifests"),
    help="Where -o dir writes one file for each object.",
)
@click.option("--image", help="Trainer image of jobs that name none.  [default: the one of this version]")
@click.option("-n", "--namespace", help="Namespace of jobs that name none.")
@click.pass_context
def render(
    ctx: click.Context,
    files: Sequence[str],
    overrides: Sequence[Override],
    output: str,
    folder: Path,
    image: str | None,
    namespace: str | None,
) -> None:
    """All or nothing: of a stream that breaks off, kubectl would apply the first half."""
    documents = judge_files(files, overrides)
    for document in documents:
        if not document.valid:
            click.echo(heading(document, documents), err=True)
        echo_findings(document, err=True)
    if any(not document.valid for document in documents):
        ctx.exit(1)
    settings = Settings(image=image) if image else Settings()
    objects = [found for document in documents for found in _objects(document, settings, namespace)]
    if output == "dir":
        _write(objects, folder)
    elif output == "json":
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2))
    else:
        click.echo("---\n".join(station.yaml_of(found) for found in objects), nl=False)


def _objects(document: Judged, settings: Settings, namespace: str | None) -> list[Mapping[str, Any]]:
    if document.resolved is None:
        return [document.other] if document.other is not None else []
    own = document.resolved.job.metadata.namespace
    return list(station.render(document.resolved, settings=settings, namespace=own or namespace).documents)


def _write(objects: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Names that `kubectl apply -f FOLDER` reads in the right order: a ConfigMap before the JobSet that mounts it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for found in objects:
            path = folder / f"{found['metadata']['name']}.{str(found['kind']).lower()}.yaml"
            path.write_text(station.yaml_of(found), encoding="utf-8")
            click.echo(path)
    except OSError as error:
        raise click.UsageError(f"{folder} cannot be written: {error.strerror}") from error
