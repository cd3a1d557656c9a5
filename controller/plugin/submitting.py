"""New jobs in a cluster, with the ConfigMaps that they need: all of them, or none.

In: objects as they are to be, judged already. Out: the jobs that the API server made. It judges nothing itself; the
server is asked to judge them all before it stores the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from controller import names
from controller.cluster.resources import CONFIG_MAPS, GRPOJOBS
from controller.plugin import code
from controller.plugin.connecting import MANAGER, Session
from controller.plugin.trouble import Exit, Trouble
from controller.runtime.client import ApiError

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Submission:
    """`code` is the ConfigMap that the jobs are to own, `others` are those that stood in their file."""

    jobs: tuple[Body, ...]
    code: Body | None = None
    others: tuple[Body, ...] = ()


def placed(session: Session, body: Body) -> Body:
    """The object in its namespace: its own, or the session's. Raises `Trouble` where both are named and differ."""
    metadata = body["metadata"]
    own = metadata.get("namespace")
    if own and session.given and own != session.namespace:
        what = f"metadata.namespace: {own} is not {session.namespace}, which was given with -n"
        raise Trouble(f"{what}; leave one of them out", Exit.USAGE)
    return body | {"metadata": metadata | {"namespace": own or session.own_namespace}}


def tried(session: Session, job: Body) -> list[tuple[str, str]]:
    """What the server has against a job, stored or changed so: paths and messages. It stores nothing."""
    try:
        session.api.apply(GRPOJOBS, job, job["metadata"]["namespace"], manager=MANAGER, force=True, dry_run=True)
    except ApiError as error:
        if not (error.is_invalid or error.status == 400):
            raise
        return list(error.causes) or [("", error.message)]
    return []


def submit(session: Session, submission: Submission, *, dry_run: bool) -> list[Body]:
    """The jobs as the server holds them, or with `dry_run` as it would."""
    judged = [_create(session, job, dry_run=True) for job in submission.jobs]
    if dry_run:
        return judged
    for other in submission.others:
        session.api.apply(CONFIG_MAPS, other, other["metadata"]["namespace"], manager=MANAGER)
    is_new = submission.code is not None and _is_made(session, submission.code)
    made: list[Body] = []
    try:
        for job in submission.jobs:
            made.append(_create(session, job, dry_run=False))
    finally:
        if submission.code is not None:
            _hand_over(session, submission.code, made, is_new)
    return made


def _create(session: Session, job: Body, *, dry_run: bool) -> Body:
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    try:
        return session.api.create(GRPOJOBS, job, namespace, dry_run=dry_run, manager=MANAGER)
    except ApiError as error:
        if error.already_exists:
            fix = "give --name-suffix, or `kubectl grpo cancel` the other first"
            raise Trouble(f"there is a job {name} in namespace {namespace}; {fix}", Exit.FAILED) from error
        if error.is_invalid and error.causes:
            lines = "".join(f"\n  {field}: {message}" for field, message in error.causes)
            raise Trouble(f"the cluster refuses {names.KIND} {name}:{lines}", Exit.FAILED) from error
        raise


def _is_made(session: Session, config_map: Body) -> bool:
    """False where it is there already: its name says what is in it."""
    try:
        session.api.create(CONFIG_MAPS, config_map, config_map["metadata"]["namespace"], manager=MANAGER)
    except ApiError as error:
        if not error.already_exists:
            raise
        return False
    return True


def _hand_over(session: Session, config_map: Body, jobs: Sequence[Body], is_new: bool) -> None:
    """The code belongs to the jobs that there are, too; made for nobody, it goes."""
    name, namespace = config_map["metadata"]["name"], config_map["metadata"]["namespace"]
    if jobs:
        try:
            session.api.patch(CONFIG_MAPS, name, namespace, code.owners(jobs), kind="strategic", manager=MANAGER)
        except ApiError as error:
            if not error.is_not_found:
                raise
            # It was another job's that went meanwhile, and went with it.
            metadata = config_map["metadata"] | code.owners(jobs)["metadata"]
            session.api.create(CONFIG_MAPS, config_map | {"metadata": metadata}, namespace, manager=MANAGER)
    elif is_new:
        session.api.delete(CONFIG_MAPS, name, namespace, propagation="Background")
