"""What a controller sees of one job at one moment: the input of station 4, as frozen values.

In: objects as the API server holds them. Out: what of them a decision needs. It decides nothing and asks nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controller import names

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
Body = Mapping[str, Any]


def parse_time(text: str | None) -> datetime | None:
    """RFC 3339 in UTC, with or without a fraction, as the API server writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def format_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(TIME_FORMAT)


def conditions_of(body: Body) -> dict[str, Body]:
    """The conditions of any object, by type."""
    return {condition["type"]: condition for condition in body.get("status", {}).get("conditions") or ()}


def controller_uid(body: Body) -> str | None:
    """The UID of the object that controls this one."""
    owners = body["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def is_going(body: Body) -> bool:
    return bool(body["metadata"].get("deletionTimestamp"))


@dataclass(frozen=True, slots=True)
class Pod:
    """One worker's pod, as it was last seen. `gone`: the API server has it no more. `asked`: its deletion was."""

    name: str
    uid: str
    job_set_uid: str
    restart: int
    slice_index: int
    host_index: int
    phase: str
    gone: bool
    asked: bool
    scheduled: bool
    disruption: str | None
    exit_code: int | None
    ended_as: str
    message: str
    waiting: str
    ended_at: str
    unschedulable: str

    @property
    def over(self) -> bool:
        """Whether nothing more will be heard of it."""
        return self.gone or self.phase in ("Succeeded", "Failed")

    @property
    def runs(self) -> bool:
        return self.phase == "Running" and not self.gone

    @classmethod
    def of(cls, body: Body, *, gone: bool = False) -> "Pod":
        metadata, status = body["metadata"], body.get("status", {})
        labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
        conditions = conditions_of(body)
        container = _container(status)
        state = container.get("state", {})
        ended = state.get("terminated") or {}
        scheduled = conditions.get("PodScheduled", {})
        disruption = conditions.get("DisruptionTarget", {})
        waiting = state.get("waiting") or {}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            job_set_uid=labels.get("jobset.sigs.k8s.io/jobset-uid", ""),
            restart=int(labels.get("jobset.sigs.k8s.io/restart-attempt", 0)),
            slice_index=int(labels.get("jobset.sigs.k8s.io/job-index", 0)),
            host_index=int(annotations.get("batch.kubernetes.io/job-completion-index", 0)),
            phase=status.get("phase", "Pending"),
            gone=gone,
            asked=bool(metadata.get("deletionTimestamp")),
            scheduled=scheduled.get("status") == "True",
            disruption=_words(disruption) if disruption.get("status") == "True" else None,
            exit_code=ended.get("exitCode"),
            ended_as=ended.get("reason") or status.get("reason") or "",
            message=ended.get("message") or status.get("message") or "",
            waiting=_words(waiting) if waiting.get("reason") not in (None, *_USUAL) else "",
            ended_at=ended.get("finishedAt") or metadata.get("deletionTimestamp") or "",
            unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        )


_USUAL = ("ContainerCreating", "PodInitializing")


def _container(status: Body) -> Body:
    found = (one for one in status.get("containerStatuses") or () if one["name"] == names.CONTAINER)
    return next(found, {})


def _words(told: Body) -> str:
    return ": ".join(told[key] for key in ("reason", "message") if told.get(key))


@dataclass(frozen=True, slots=True)
class Report:
    """What process 0 told last, and of which attempt. `age_seconds` is how long ago that was, `silent_seconds` how long
    its heartbeat had stood still by then, both by a clock that nobody sets; `patience_seconds` is for how long it may,
    where the trainer said so: what it does now may take longer than a step.
    """

    step: int
    total_steps: int
    reward_mean: float | None
    tokens_per_second_per_chip: float | None
    eta_seconds: float | None
    checkpoint_step: int | None
    job_set_uid: str
    restart: int
    age_seconds: float
    silent_seconds: float
    patience_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """One job and all that belongs to it. `pods` are all that were seen of its JobSet and not yet judged.

    `taken` names whose the JobSet's name is, where it is not ours. `job_set_schema` is that of the installed JobSet's
    spec, None where there is none. `refusal` is what the API server said to the last attempt to create a child.
    `notes` are events of pods that wait, newest last.
    """

    job: Body
    now: datetime
    job_set: Body | None = None
    pods: tuple[Pod, ...] = ()
    frozen: Body | None = None
    workload: Body | None = None
    report: Report | None = None
    taken: str | None = None
    job_set_schema: Body | None = None
    refusal: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def uid(self) -> str:
        return str(self.job["metadata"]["uid"])

    @property
    def restart(self) -> int:
        """The number of the JobSet's attempt under way."""
        return int((self.job_set or {}).get("status", {}).get("restarts") or 0)

    @property
    def terminal(self) -> str | None:
        """`Completed` or `Failed`, as the JobSet ended."""
        return (self.job_set or {}).get("status", {}).get("terminalState") or None

    @property
    def held(self) -> bool:
        """Whether Kueue keeps the JobSet from running."""
        return bool((self.job_set or {}).get("spec", {}).get("suspend"))

    @property
    def slices(self) -> int:
        return int(_replicated_job(self.job_set or {}).get("replicas", 1))

    @property
    def hosts(self) -> int:
        """Pods of a slice."""
        template = _replicated_job(self.job_set or {}).get("template", {})
        return int(template.get("spec", {}).get("parallelism", 1))

    @property
    def job_set_uid(self) -> str | None:
        return None if self.job_set is None else str(self.job_set["metadata"]["uid"])

    def pods_of(self, restart: int, job_set_uid: str | None = None) -> tuple[Pod, ...]:
        """The pods of one attempt, of the present JobSet where no other is named."""
        uid = job_set_uid or self.job_set_uid
        return tuple(pod for pod in self.pods if pod.restart == restart and pod.job_set_uid == uid)


def _replicated_job(job_set: Body) -> Body:
    found: Body = next(iter(job_set.get("spec", {}).get("replicatedJobs") or ({},)))
    return found
