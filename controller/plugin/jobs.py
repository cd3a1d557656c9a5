"""Jobs of a cluster: found by name, by label or all, and how each is now.

In: a `Session`. Out: GRPOJobs as the API server holds them. It changes nothing.
"""

import math
import time
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from controller.cluster.resources import GRPOJOBS
from controller.plugin.connecting import Session
from controller.plugin.trouble import Exit, Trouble
from controller.runtime.client import ApiError
from controller.runtime.store import key_of

Body = dict[str, Any]
PAGE = 500
WATCH_SECONDS = 300
AGAIN_SECONDS = 1.0
ENDED = ("Succeeded", "Failed")


def every(session: Session, selector: str | None = None, field_selector: str | None = None) -> list[Body]:
    """All jobs of the session's namespace, or of all, in the order of their keys."""
    found, _ = _listed(session, selector, field_selector)
    return [found[key] for key in sorted(found)]


def one(session: Session, name: str) -> Body:
    """Raises `Trouble` where there is none of this name, with what may have been meant."""
    try:
        return session.api.get(GRPOJOBS, name, session.own_namespace)
    except ApiError as error:
        if not error.is_not_found or error.lacks_kind:
            raise
    raise Trouble(f"no job {name} in namespace {session.own_namespace}; {_meant(session, name)}", Exit.ABSENT)


def same(session: Session, body: Body) -> Body:
    """The job as it is now. Raises `Trouble` where it was deleted, whatever has its name by now."""
    name = body["metadata"]["name"]
    try:
        found = session.api.get(GRPOJOBS, name, body["metadata"]["namespace"])
    except ApiError as error:
        if not error.is_not_found:
            raise
        found = None
    if found is None or found["metadata"]["uid"] != body["metadata"]["uid"]:
        raise Trouble(f"{name} was deleted before it ended", Exit.FAILED)
    return found


def chosen(session: Session, names: Sequence[str], selector: str | None, take_all: bool) -> list[Body]:
    """The jobs that were named, those with a label, or all: exactly one of the three."""
    if (len(names) > 0) + (selector is not None) + take_all != 1:
        raise Trouble("say which jobs: their names, or --selector, or --all", Exit.USAGE)
    if names:
        return [one(session, name) for name in dict.fromkeys(names)]
    found = every(session, selector)
    if not found:
        what = f"with {selector} " if selector else ""
        raise Trouble(f"no job {what}in {session.place}; `kubectl grpo list -A` shows all", Exit.ABSENT)
    return found


def _meant(session: Session, name: str) -> str:
    """A job of a like name here, or one of this name elsewhere, where one may look there."""
    near = get_close_matches(name, [body["metadata"]["name"] for body in every(session)], n=1)
    if near:
        return f"did you mean {near[0]}?"
    try:
        elsewhere = session.api.list(GRPOJOBS, field_selector=f"metadata.name={name}", limit=PAGE)["items"]
    except ApiError:
        elsewhere = []
    if elsewhere:
        return f"there is one in namespace {elsewhere[0]['metadata']['namespace']}: give -n"
    return "`kubectl grpo list -A` shows all"


def snapshots(
    session: Session, name: str | None = None, selector: str | None = None, until: float = math.inf
) -> Iterator[dict[str, Body]]:
    """The jobs by key (`namespace/name`) now, and again after each change, until the monotonic time `until`.

    An API server that is away for a while is waited for.
    """
    field = f"metadata.name={name}" if name else None
    version: str | None = None
    found: dict[str, Body] = {}
    while (left := until - time.monotonic()) > 0:
        try:
            if version is None:
                found, version = _listed(session, selector, field)
                yield dict(found)
            watch = session.api.watch(
                GRPOJOBS, session.namespace, version, selector, field, seconds=math.ceil(min(left, WATCH_SECONDS))
            )
            for kind, body in watch:
                version = body["metadata"]["resourceVersion"]
                if kind != "BOOKMARK":
                    _take(found, kind, body)
                    yield dict(found)
        except ApiError as error:
            if not (error.is_gone or error.is_transient):
                raise
            version = None
            time.sleep(max(0.0, min(AGAIN_SECONDS, until - time.monotonic())))


def _take(found: dict[str, Body], kind: str, body: Body) -> None:
    if kind == "DELETED":
        found.pop(key_of(body), None)
    else:
        found[key_of(body)] = body


def _listed(session: Session, selector: str | None, field_selector: str | None) -> tuple[dict[str, Body], str]:
    """Page by page, with the version that the server is at."""
    found: dict[str, Body] = {}
    resume: str | None = None
    while True:
        page = session.api.list(GRPOJOBS, session.namespace, selector, field_selector, PAGE, resume)
        found |= {key_of(body): body for body in page["items"]}
        resume = page["metadata"].get("continue")
        if not resume:
            return found, page["metadata"]["resourceVersion"]


def phase_of(body: Body) -> str:
    """One word; a job that no operator has looked at is `Pending`, one that is being deleted `Ending`."""
    if body["metadata"].get("deletionTimestamp"):
        return "Ending"
    return str(body.get("status", {}).get("phase") or "Pending")


def is_over(body: Body) -> bool:
    return body.get("status", {}).get("phase") in ENDED


def told_of_end(body: Body) -> str:
    """Why a job that has ended did: its terminal condition's reason and message."""
    for condition in body.get("status", {}).get("conditions") or ():
        if condition["type"] in ENDED and condition["status"] == "True":
            return f"{condition['reason']}: {condition['message']}"
    return phase_of(body)
