"""`grpojob_*`: how many jobs stand where, which attempts were counted, and how jobs ended.

In: stored statuses. Out: series in the engine's registry. It decides nothing.
"""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.lifecycle.reconcile import is_finished, read_status
from controller.runtime.store import Store
from controller.statustypes import Attempt, GRPOJobStatus

PHASES = ("Pending", "Queued", "Starting", "Running", "Restarting", "Suspended", "Succeeded", "Failed")


class JobMetrics:
    """`told` is called with a job as it was and the status that was stored."""

    def __init__(self, registry: CollectorRegistry, jobs: Store) -> None:
        self._attempts = Counter(
            "grpojob_attempts", "Attempts that ended, by class and reason.", ["class", "reason"], registry=registry
        )
        self._finished = Counter(
            "grpojob_finished", "Jobs that ended, by reason.", ["result", "reason"], registry=registry
        )
        registry.register(_Phases(jobs))

    def told(self, job: Any, status: GRPOJobStatus) -> None:
        old = read_status(job)
        for attempt in new_attempts(old.attempts.last, status.attempts.last):
            self._attempts.labels(attempt.classification, attempt.reason).inc()
        if is_finished(status) and not is_finished(old):
            for condition in status.conditions:
                if condition.type in ("Succeeded", "Failed") and condition.status == "True":
                    self._finished.labels(condition.type, condition.reason).inc()


class _Phases(Collector):
    def __init__(self, jobs: Store) -> None:
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        jobs = (self._jobs.get(key) for key in self._jobs.keys())  # noqa: SIM118 - a store is no mapping
        tally = Tally((job.get("status") or {}).get("phase") or "Pending" for job in jobs if job is not None)
        family = GaugeMetricFamily("grpojobs", "Jobs, by phase.", labels=["phase"])
        for phase in PHASES:
            family.add_metric([phase], tally[phase])
        yield family


def new_attempts(old: Iterable[Attempt], new: Iterable[Attempt]) -> list[Attempt]:
    """Those that were counted since."""
    known = [attempt.model_dump_json() for attempt in old]
    return [attempt for attempt in new if attempt.model_dump_json() not in known]
