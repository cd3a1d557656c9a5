"""What station 4 decides: what is created, what the status says, what is told, what is deleted. Plain values.

In the order in which they are carried out: the status names what was created before it, and explains what is deleted
after it; events tell only what the status already says.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from controller.lifecycle.attempts import explained
from controller.lifecycle.conditions import BY_WORD, Reason
from controller.lifecycle.observed import Body
from controller.statustypes import Condition, GRPOJobStatus

Told = Literal["Normal", "Warning"]


@dataclass(frozen=True, slots=True)
class Delete:
    """One deletion, of exactly this object."""

    kind: Literal["JobSet", "GRPOJob"]
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Event:
    """`reason` is one of the documented reasons; `note` what a person reads."""

    type: Told
    reason: str
    note: str


@dataclass(frozen=True, slots=True)
class Decision:
    """`status` is None where nothing is to be written; `requeue_after`: seconds until time changes things."""

    creates: tuple[dict[str, Any], ...] = ()
    status: GRPOJobStatus | None = None
    events: tuple[Event, ...] = ()
    deletes: tuple[Delete, ...] = ()
    requeue_after: float | None = None

    def and_then(self, later: "Decision") -> "Decision":
        """Both: `later` was decided when the creates and the status of this one were seen. Times are those of then."""
        return Decision(
            creates=self.creates,
            status=later.status or self.status,
            events=tuple(dict.fromkeys(self.events + later.events)),
            deletes=tuple(dict.fromkeys(self.deletes + later.deletes)),
            requeue_after=later.requeue_after,
        )


def delete_job_set(job_set: Body) -> Delete:
    return Delete("JobSet", job_set["metadata"]["name"], job_set["metadata"]["uid"])


_TELLING: dict[tuple[str, str], Told] = {
    ("Validated", "True"): "Normal",
    ("Validated", "False"): "Warning",
    ("Suspended", "True"): "Normal",
    ("Running", "True"): "Normal",
    ("Succeeded", "True"): "Normal",
    ("Failed", "True"): "Warning",
}
_WARNED = (
    Reason.SPEC_CHANGED,
    Reason.JOB_SET_MISSING,
    Reason.NAME_TAKEN,
    Reason.REFUSED,
    Reason.STALLED,
    Reason.CONTAINERS_WAITING,
)


def events_between(old: GRPOJobStatus, new: GRPOJobStatus) -> tuple[Event, ...]:
    """What a status says that the one before did not: attempts that were counted, and conditions that turned.

    A fatal attempt and the failure of the job that it causes are one event.
    """
    return tuple(dict.fromkeys(_told_anew(old, new)))


def _told_anew(old: GRPOJobStatus, new: GRPOJobStatus) -> Iterator[Event]:
    counted = [attempt.model_dump_json() for attempt in old.attempts.last]
    for attempt in new.attempts.last:
        if attempt.model_dump_json() not in counted:
            yield Event("Warning", attempt.reason, explained(attempt))
    before = {condition.type: condition for condition in old.conditions}
    for condition in new.conditions:
        known = before.get(condition.type)
        if known is None or (known.status, known.reason) != (condition.status, condition.reason):
            yield from _of_condition(condition)


def _of_condition(condition: Condition) -> Iterator[Event]:
    warned = BY_WORD.get(condition.reason) in _WARNED
    told = "Warning" if warned else _TELLING.get((condition.type, condition.status))
    if told is not None:
        yield Event(told, condition.reason, condition.message)
