"""`grpoctl clone`: a job of a cluster once more, changed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from controller.cluster.resources import CONFIG_MAPS
from controller.commands.clusterside import ClusterCommand, cluster_options, output_option
from controller.commands.documents import judge_text
from controller.commands.making import (
    RANDOM,
    code_override,
    make,
    making_options,
    name_with,
    refuse_invalid,
)
from controller.grpojob import Override
from controller.plugin import code as packing
from controller.plugin import jobs
from controller.plugin.connecting import Session
from controller.plugin.trouble import Exit, Trouble
from controller.runtime.client import ApiError
from trainer.contract.documents import dump_document

HELP = """Make a new job with the specification of JOB, and --set laid over it; its run begins anew.

\b
  kubectl grpo clone demo --set optimizer.learningRate=2.0e-6 --name-suffix lr2

Code that JOB owns (`submit --code`) is the clone's too, and stays when JOB is deleted.
With -o json or yaml: the new job as the cluster holds it.
"""


@click.command(cls=ClusterCommand, help=HELP)
@click.argument("job")
@making_options
@cluster_options()
@output_option
@click.pass_context
def clone(
    ctx: click.Context,
    session: Session,
    job: str,
    overrides: Sequence[Override],
    code: Path | None,
    name_suffix: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """A clone is not suspended, whatever JOB is, unless --set says so."""
    original = jobs.one(session, job)
    files = packing.packed(code) if code else _own_code(session, original)
    given = [*([code_override(files)] if files else []), *overrides]
    body = _body_of(original, name_with(job, name_suffix or RANDOM))
    documents = judge_text(dump_document(body), f"clone of {job}", f"clone of {job}", given)
    refuse_invalid(ctx, documents)
    make(session, documents, files, dry_run=dry_run, output=output)


def _body_of(original: jobs.Body, name: str) -> jobs.Body:
    metadata: dict[str, Any] = {"name": name, "namespace": original["metadata"]["namespace"]}
    if labels := original["metadata"].get("labels"):
        metadata["labels"] = labels
    spec = {key: value for key, value in original["spec"].items() if key != "suspend"}
    return {"apiVersion": original["apiVersion"], "kind": original["kind"], "metadata": metadata, "spec": spec}


def _own_code(session: Session, original: jobs.Body) -> dict[str, str] | None:
    """The files of a ConfigMap that goes with the job; one that is anybody's is named again."""
    name = (original["spec"].get("code") or {}).get("configMap")
    if name is None:
        return None
    try:
        found = session.api.get(CONFIG_MAPS, name, original["metadata"]["namespace"])
    except ApiError as error:
        if not error.is_not_found:
            raise
        raise Trouble(
            f"spec.code.configMap: {name} is gone; give the folder of its files with --code", Exit.FAILED
        ) from None
    owners = found["metadata"].get("ownerReferences") or ()
    owned = any(owner["uid"] == original["metadata"]["uid"] for owner in owners)
    return dict(found.get("data") or {}) if owned else None
