"""What `submit` and `clone` share: judged documents become new jobs, with a name and code of their own."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from controller.commands.clusterside import as_list, bare, show_data
from controller.commands.documents import Judged, judge_text, set_option
from controller.commands.findings import echo_findings, heading
from controller.grpojob import Override
from controller.plugin import code
from controller.plugin.connecting import Session
from controller.plugin.submitting import Submission, placed, submit
from controller.plugin.trouble import Exit, Trouble
from trainer.contract.documents import dump_document

Body = dict[str, Any]
RANDOM = "random"

code_option = click.option(
    "--code",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with your rewards' Python files: packed into an immutable ConfigMap that the job owns.",
)
suffix_option = click.option(
    "--name-suffix", metavar="SUFFIX", help='Name the job NAME-SUFFIX; "random" makes one of five letters.'
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Ask the cluster whether it would take it; make nothing.")


def making_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a new job may be given, beside what it is made of."""
    for option in (dry_run_option, suffix_option, code_option, set_option):
        command = option(command)
    return command


def suffixed(document: Judged, suffix: str) -> Judged:
    """A job under another name, judged anew: names have rules, too."""
    if document.body is None or document.name is None:
        return document
    metadata = {**document.body["metadata"], "name": name_with(document.name, suffix)}
    text = dump_document({**document.body, "metadata": metadata})
    (judged,) = judge_text(text, document.file, document.file, ())
    return judged


def name_with(name: str, suffix: str) -> str:
    return f"{name}-{code.suffix() if suffix == RANDOM else suffix.lstrip('-')}"


def code_override(files: Mapping[str, str]) -> Override:
    """`spec.code` names their ConfigMap; whatever code was there, it takes its place."""
    return Override("code", ("code",), {"configMap": code.name_of(files)})


def refuse_invalid(ctx: click.Context, documents: Sequence[Judged]) -> None:
    """Tell what is wrong with any of them, and go; warnings are told in any case."""
    for document in documents:
        if not document.valid:
            click.echo(heading(document, documents), err=True)
        echo_findings(document, err=True)
    if any(not document.valid for document in documents):
        ctx.exit(Exit.FAILED)


def make(
    session: Session,
    documents: Sequence[Judged],
    files: Mapping[str, str] | None,
    *,
    dry_run: bool,
    output: str,
) -> None:
    """Submit the jobs of the documents and print what was made; `files` are those of their code."""
    jobs = tuple(placed(session, object_of(document)) for document in documents if document.body is not None)
    others = tuple(placed(session, _config_map(document.other)) for document in documents if document.other is not None)
    _refuse_twins(jobs)
    namespaces = {job["metadata"]["namespace"] for job in jobs}
    if files is not None and len(namespaces) > 1:
        raise Trouble("--code: the jobs are in several namespaces; submit them one by one", Exit.USAGE)
    packed = None if files is None else code.config_map(namespaces.pop(), files)
    made = submit(session, Submission(jobs, packed, others), dry_run=dry_run)
    if output != "text":
        show_data(bare(made[0]) if len(made) == 1 else as_list(made), output)
        return
    for job in made:
        click.echo(f"grpojob.grpo.dev/{job['metadata']['name']} created" + (" (server dry run)" if dry_run else ""))


def _refuse_twins(jobs: Sequence[Body]) -> None:
    """The second would be refused once the first is made."""
    keys = Counter((job["metadata"]["namespace"], job["metadata"]["name"]) for job in jobs)
    for (_, name), count in keys.items():
        if count > 1:
            raise Trouble(f"metadata.name: {name} is the name of {count} jobs of the file; rename them", Exit.USAGE)


def object_of(document: Judged) -> Body:
    """What the API server is sent: nothing that only it may write."""
    assert document.body is not None  # noqa: S101 - filtered above
    metadata = {
        key: value
        for key, value in document.body["metadata"].items()
        if key in ("name", "namespace", "labels", "annotations")
    }
    return {key: document.body[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": metadata}


def _config_map(other: Mapping[str, Any]) -> Body:
    if (other.get("apiVersion"), other.get("kind")) != ("v1", "ConfigMap"):
        fix = "apply it with kubectl, and submit a file without it"
        raise Trouble(
            f"submit makes GRPOJobs and ConfigMaps, and the file has a {other.get('kind')}; {fix}", Exit.USAGE
        )
    return dict(other)
