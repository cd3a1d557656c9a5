"""The newest report of each job, with the time since when its heartbeat stands still."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from controller.lifecycle import progressing
from controller.lifecycle.observed import Report
from trainer.contract.report import ProgressReport


@dataclass(frozen=True, slots=True)
class Teller:
    """Whose word a report is: the pod of process 0 of the job with this uid and the key `namespace/name`."""

    job_uid: str
    key: str
    pod_uid: str
    job_set_uid: str
    restart: int


@dataclass(frozen=True, slots=True)
class Received:
    """What was told last, by whom and when. Times are of a clock that nobody sets, in seconds; `beating_since` is when
    this value of the heartbeat was told first.
    """

    told: ProgressReport
    teller: Teller
    at: float
    beating_since: float

    @property
    def silent_seconds(self) -> float:
        """How long the heartbeat had stood still when this came."""
        return self.at - self.beating_since

    def news(self) -> tuple[object, ...]:
        """What a status would show. Times and the count itself are left out: each report differs in them."""
        told = self.told
        return self.teller.pod_uid, told.step, told.checkpoint_step, told.doing, self.silent_seconds == 0

    def seen(self, now: float) -> Report:
        """As decisions read it."""
        told = self.told
        return Report(
            step=told.step,
            total_steps=told.total_steps,
            reward_mean=told.reward_mean,
            tokens_per_second_per_chip=told.tokens_per_second_per_device,
            eta_seconds=told.eta_seconds,
            checkpoint_step=told.checkpoint_step,
            job_set_uid=self.teller.job_set_uid,
            restart=self.teller.restart,
            age_seconds=now - self.at,
            silent_seconds=self.silent_seconds,
            patience_seconds=told.patience_seconds,
        )


class Reports:
    """By the job's uid, for any thread. `on_report` is called with the job's key after one that says something new: a
    step, a checkpoint, other work, another pod, a heartbeat that stands or goes on again; or that reports come again.
    """

    def __init__(
        self, on_report: Callable[[str], None] = lambda key: None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_report, self._now = on_report, now
        self._latest: dict[str, Received] = {}
        self._lock = threading.Lock()

    def latest(self, uid: str) -> Report | None:
        with self._lock:
            received = self._latest.get(uid)
        return None if received is None else received.seen(self._now())

    def forget(self, uid: str) -> None:
        """The job has ended or is gone."""
        with self._lock:
            self._latest.pop(uid, None)

    def take(self, teller: Teller, told: ProgressReport) -> None:
        now = self._now()
        with self._lock:
            old = self._latest.get(teller.job_uid)
            same = old is not None and (old.teller.pod_uid, old.told.heartbeat) == (teller.pod_uid, told.heartbeat)
            new = Received(told, teller, now, old.beating_since if old is not None and same else now)
            self._latest[teller.job_uid] = new
        if old is None or old.news() != new.news() or now - old.at >= progressing.SILENCE_SECONDS:
            self._on_report(teller.key)
