"""What one worker of a job says, attempt after attempt, as long as its pods are there.

In: a `Session`, a job, a place in it. Out: lines. A connection that breaks, and an API server that restarts, cost no
line and repeat none: each is asked for with its time. It prints nothing.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from controller import names
from controller.cluster.resources import PODS
from controller.plugin import jobs
from controller.plugin.connecting import Session
from controller.plugin.trouble import Exit, Trouble
from controller.plugin.whole import Worker, workers_of
from controller.runtime.client import ApiError

Body = dict[str, Any]
Answer = TypeVar("Answer")
LOOK_SECONDS = 1.0
BEGUN = ("Running", "Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Place:
    """One process of a job: its slice, and its host in it."""

    slice_index: int = 0
    host_index: int = 0

    def process(self, job: Body) -> int:
        """Its index over all slices. Raises `Trouble` where the job has no such process."""
        plan = (job.get("status") or {}).get("plan") or {}
        hosts, slices = plan.get("hosts"), plan.get("slices")
        name = job["metadata"]["name"]
        if hosts is not None and self.host_index >= hosts:
            told = f"a slice of {name} has {_counted(hosts, 'host')}"
            raise Trouble(f"--host {self.host_index}: {told}; use 0 to {hosts - 1}", Exit.USAGE)
        if slices is not None and self.slice_index >= slices:
            told = f"{name} has {_counted(slices, 'slice')}"
            raise Trouble(f"--slice {self.slice_index}: {told}; use 0 to {slices - 1}", Exit.USAGE)
        return self.slice_index * int(hosts or 1) + self.host_index

    def has(self, worker: Worker) -> bool:
        return (worker.pod.slice_index, worker.pod.host_index) == (self.slice_index, self.host_index)


def newest(session: Session, job: Body, place: Place, attempt: int | None = None) -> Worker | None:
    """The pod of the newest attempt, or of the one that was named, where it has begun and is still there."""
    for worker in workers_of(session, job):
        if place.has(worker) and worker.pod.phase in BEGUN and attempt in (None, worker.attempt):
            return worker
    return None


def printed(session: Session, job: Body, worker: Worker, tail: int | None = None) -> Iterator[bytes]:
    """What a pod has said so far."""
    query = {"container": names.CONTAINER, "tailLines": tail}
    yield from session.api.lines(_path(job, worker), query)


def followed(
    session: Session,
    job: Body,
    place: Place,
    attempt: int | None = None,
    tail: int | None = None,
    begins: Callable[[Worker], None] = lambda worker: None,
    waits: Callable[[Body], None] = lambda job: None,
) -> Iterator[bytes]:
    """What is said until the job has ended, each attempt after the other, or until the end of the one that was named.

    `begins` hears of each attempt before its first line, `waits` that there is none yet. An attempt that has no pod any
    more by the time it is looked at is not told. `tail` holds for the first.
    """
    following = attempt or 0
    while True:
        body = _now(session, job)
        worker = _next(session, job, place, attempt, following)
        if worker is not None:
            begins(worker)
            yield from _whole_pod(session, job, worker, tail)
            tail, following = None, worker.attempt + 1
            if attempt is not None:
                return
        elif body is None or jobs.is_over(body):
            return
        else:
            waits(body)
            time.sleep(LOOK_SECONDS)


def _next(session: Session, job: Body, place: Place, attempt: int | None, following: int) -> Worker | None:
    """Of the attempts that were not told yet, the newest where none was, else the oldest that is there."""
    found = _patiently(lambda: workers_of(session, job)) or []
    there = [one for one in found if place.has(one) and one.pod.phase in BEGUN and one.attempt >= following]
    if attempt is not None:
        there = [one for one in there if one.attempt == attempt]
    return (there[0] if following == 0 else there[-1]) if there else None


class _Told:
    """Which lines of a log were told: all before the newest time, and so many of that time."""

    def __init__(self) -> None:
        self.newest, self._count, self._repeated = b"", 0, 0

    def opened(self) -> None:
        """The log is asked for again from the newest time on."""
        self._repeated = self._count

    def is_new(self, stamp: bytes) -> bool:
        if stamp < self.newest:
            return False
        if stamp > self.newest:
            self.newest, self._count, self._repeated = stamp, 1, 0
            return True
        if self._repeated:
            self._repeated -= 1
            return False
        self._count += 1
        return True


def _whole_pod(session: Session, job: Body, worker: Worker, tail: int | None) -> Iterator[bytes]:
    """One pod's lines to its end."""
    told = _Told()
    while True:
        over = _is_over(session, job, worker)
        told.opened()
        query: Body = {"container": names.CONTAINER, "follow": "true", "timestamps": "true"}
        query |= {"sinceTime": told.newest.decode()} if told.newest else {"tailLines": tail}
        try:
            for line in session.api.lines(_path(job, worker), query):
                stamp, _, text = line.partition(b" ")
                if told.is_new(stamp):
                    yield text
        except ApiError as error:
            if error.is_not_found:
                return
            if not error.is_transient:
                raise
        if over:
            return
        time.sleep(0.0 if _is_over(session, job, worker) else LOOK_SECONDS)


def _is_over(session: Session, job: Body, worker: Worker) -> bool:
    """Whether the pod says nothing more; one that is gone does not."""
    try:
        found = session.api.get(PODS, worker.pod.name, job["metadata"]["namespace"])
    except ApiError as error:
        if error.is_not_found:
            return True
        if error.is_transient:
            return False
        raise
    return found["metadata"]["uid"] != worker.pod.uid or found["status"].get("phase") in ("Succeeded", "Failed")


def _now(session: Session, job: Body) -> Body | None:
    """The job, None where it is no more; as it was, where the API server does not say."""
    try:
        return _patiently(lambda: jobs.same(session, job)) or job
    except Trouble:
        return None


def _patiently(ask: Callable[[], Answer]) -> Answer | None:
    """None where the API server is away for now."""
    try:
        return ask()
    except ApiError as error:
        if not error.is_transient:
            raise
        return None


def _path(job: Body, worker: Worker) -> str:
    return PODS.path(job["metadata"]["namespace"], worker.pod.name, "log")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
