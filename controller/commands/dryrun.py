"""What a cluster says of judged documents, in a dry run: loaded only when it is asked."""

from collections.abc import Sequence
from dataclasses import replace

import click

from controller.commands.clusterside import connected, telling
from controller.commands.documents import Judged
from controller.commands.findings import SERVER
from controller.commands.making import object_of
from controller.plugin.connecting import Session
from controller.plugin.submitting import placed, tried
from trainer.contract.violations import Violation


def judged_by_server(
    ctx: click.Context,
    documents: Sequence[Judged],
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
) -> list[Judged]:
    """Each document, with what the server has against it that was not found here."""
    with telling(ctx):
        session = connected(ctx, kubeconfig, context, namespace)
        return [_judged(session, document) for document in documents]


def _judged(session: Session, document: Judged) -> Judged:
    if document.body is None or document.name is None:
        return document
    known = {(violation.path, violation.message) for violation in document.violations}
    told = [cause for cause in tried(session, placed(session, object_of(document))) if cause not in known]
    found = tuple(Violation(SERVER, path, None, message) for path, message in told)
    if not found:
        return document
    return replace(document, resolved=None, violations=(*document.violations, *found))
