"""One job with all that belongs to it: its pods, and what was told of it lately.

In: a `Session` and a job. Out: plain data; what the user may not read is told, not fatal. It changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controller import names
from controller.cluster.resources import EVENTS, PODS
from controller.lifecycle.observed import Pod
from controller.plugin.connecting import Session
from controller.runtime.client import ApiError
from trainer.contract.process import ENV_ATTEMPTS_BEFORE

Body = dict[str, Any]
MOST_EVENTS = 12
MOST_WAITING = 3
"""Pods that wait whose own events are asked for: of a slice, all wait for the same."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A pod of a job; `attempt` counts from the job's first, over all its JobSets."""

    pod: Pod
    attempt: int
    node: str
    created: str

    @classmethod
    def of(cls, body: Body) -> "Worker":
        env = next((one.get("env") or () for one in body["spec"]["containers"] if one["name"] == names.CONTAINER), ())
        before = next((int(one["value"]) for one in env if one["name"] == ENV_ATTEMPTS_BEFORE), 0)
        pod = Pod.of(body)
        return cls(
            pod, before + pod.restart, body["spec"].get("nodeName", ""), body["metadata"].get("creationTimestamp", "")
        )

    def as_dict(self) -> Body:
        pod = self.pod
        return {
            "name": pod.name,
            "slice": pod.slice_index,
            "host": pod.host_index,
            "attempt": self.attempt,
            "phase": pod.phase,
            "node": self.node or None,
            "exitCode": pod.exit_code,
            "why": self.why or None,
            "created": self.created,
        }

    @property
    def why(self) -> str:
        """Why it waits, or how it ended."""
        pod = self.pod
        if pod.exit_code:
            return f"exit code {pod.exit_code}"
        return pod.disruption or pod.waiting or pod.unschedulable


@dataclass(frozen=True, slots=True)
class Whole:
    """`hidden` says what could not be read, and why."""

    job: Body
    workers: tuple[Worker, ...]
    events: tuple[Body, ...]
    hidden: tuple[str, ...]

    def as_dict(self) -> Body:
        return {
            "job": self.job,
            "pods": [worker.as_dict() for worker in self.workers],
            "events": list(self.events),
            "hidden": list(self.hidden),
        }


def workers_of(session: Session, job: Body) -> list[Worker]:
    """The pods that are there, by slice and host, the newest attempt first."""
    metadata = job["metadata"]
    label = f"{names.LABEL_JOB}={metadata['name']}"
    found = [Worker.of(body) for body in session.api.list(PODS, metadata["namespace"], label_selector=label)["items"]]
    return sorted(found, key=lambda worker: (-worker.attempt, worker.pod.slice_index, worker.pod.host_index))


def whole(session: Session, job: Body) -> Whole:
    hidden: list[str] = []

    def asked(what: str, ask: Callable[[], list[Any]]) -> list[Any]:
        try:
            return ask()
        except ApiError as error:
            if error.status != 403:
                raise
            hidden.append(f"{what}: not allowed to read them")
            return []

    workers = asked("pods", lambda: workers_of(session, job))
    waiting = [worker.pod.uid for worker in workers if worker.pod.phase == "Pending"][:MOST_WAITING]
    uids = [job["metadata"]["uid"], *waiting]
    events = asked("events", lambda: [event for uid in uids for event in _events(session, job, uid)])
    latest = sorted(events, key=lambda event: event["time"], reverse=True)[:MOST_EVENTS]
    return Whole(job, tuple(workers), tuple(latest), tuple(hidden))


def _events(session: Session, job: Body, uid: str) -> list[Body]:
    namespace = job["metadata"]["namespace"]
    found = session.api.list(EVENTS, namespace, field_selector=f"involvedObject.uid={uid}")["items"]
    return [
        {
            "time": body.get("lastTimestamp") or body.get("eventTime") or body["metadata"]["creationTimestamp"],
            "type": body.get("type", "Normal"),
            "reason": body.get("reason", ""),
            "object": f"{body['involvedObject']['kind']}/{body['involvedObject']['name']}",
            "message": body.get("message", ""),
        }
        for body in found
    ]
