"""The newest report of each job, with the time since when its heartbeat stands still."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from trainer.contract.report import ProgressReport


@dataclass(frozen=True, slots=True)
class Report:
    """What process 0 told last. Times are of a clock that nobody sets, in seconds.

    `attempt` is the number that the trainer was given; `job_set_uid` and `restart` are those of its pod.
    `beating_since` is when this value of the heartbeat was told first.
    """

    step: int
    total_steps: int
    reward_mean: float | None
    tokens_per_second_per_chip: float | None
    eta_seconds: float | None
    checkpoint_step: int | None
    heartbeat: int
    doing: str
    attempt: int
    pod_uid: str
    job_set_uid: str
    restart: int
    received_at: float
    beating_since: float
    patience_seconds: float | None = None

    def age_seconds(self, now: float) -> float:
        return now - self.received_at

    @property
    def silent_seconds(self) -> float:
        """How long the heartbeat had stood still when the last report came."""
        return self.received_at - self.beating_since


@dataclass(frozen=True, slots=True)
class Teller:
    """Whose word a report is: the pod of process 0 of the job with this uid and the key `namespace/name`."""

    job_uid: str
    key: str
    pod_uid: str
    job_set_uid: str
    restart: int


class Reports:
    """By the job's uid, for any thread. `on_report` is called with the job's key after one that says something new: a
    step, a checkpoint, other work, another pod, or a heartbeat that stands or goes on again.
    """

    def __init__(
        self, on_report: Callable[[str], None] = lambda key: None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_report, self._now = on_report, now
        self._latest: dict[str, Report] = {}
        self._lock = threading.Lock()

    def latest(self, uid: str) -> Report | None:
        with self._lock:
            return self._latest.get(uid)

    def forget(self, uid: str) -> None:
        """The job has ended or is gone."""
        with self._lock:
            self._latest.pop(uid, None)

    def take(self, teller: Teller, told: ProgressReport) -> None:
        with self._lock:
            old = self._latest.get(teller.job_uid)
            new = self._latest[teller.job_uid] = _joined(old, teller, told, self._now())
        if old is None or _news(old) != _news(new):
            self._on_report(teller.key)


def _joined(old: Report | None, teller: Teller, told: ProgressReport, now: float) -> Report:
    same = old is not None and (old.pod_uid, old.heartbeat) == (teller.pod_uid, told.heartbeat)
    return Report(
        step=told.step,
        total_steps=told.total_steps,
        reward_mean=told.reward_mean,
        tokens_per_second_per_chip=told.tokens_per_second_per_device,
        eta_seconds=told.eta_seconds,
        checkpoint_step=told.checkpoint_step,
        heartbeat=told.heartbeat,
        doing=told.doing,
        attempt=told.attempt,
        pod_uid=teller.pod_uid,
        job_set_uid=teller.job_set_uid,
        restart=teller.restart,
        received_at=now,
        beating_since=old.beating_since if old is not None and same else now,
        patience_seconds=told.patience_seconds,
    )


def _news(report: Report) -> tuple[object, ...]:
    """What a status would show. Times and the count itself are left out: each report differs in them."""
    moving = report.silent_seconds == 0
    return report.pod_uid, report.step, report.checkpoint_step, report.doing, moving
