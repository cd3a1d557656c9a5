"""What the engine counts, under the names that users of controller-runtime know, in a registry of its own.

Other parts register theirs (`grpojob_*`) in the same `registry`. The classes below are what queue, workers and client
report to; they know prometheus_client, those do not.
"""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from controller.runtime.queue import WorkQueue
from controller.runtime.workers import Outcome

# Bounds of controller-runtime's histograms, in seconds.
# https://github.com/kubernetes-sigs/controller-runtime/blob/main/pkg/internal/controller/metrics/metrics.go
RECONCILE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
QUEUE_SECONDS = tuple(10.0**power for power in range(-6, 4))


class Metrics:
    """The registry, and the series that belong to no single controller."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # half of all lines, which nobody asks for
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._requests = Counter(
            "rest_client_requests",
            "Requests to the API server, by status code and method; code <error> is no answer.",
            ["code", "method"],
            registry=self.registry,
        )
        self._leading = Gauge(
            "leader_election_master_status", "1 on the replica that leads.", ["name"], registry=self.registry
        )
        self._events = Counter(
            "events", "Kubernetes events: sent, or dropped over budget or refused.", ["outcome"], registry=self.registry
        )

    def requested(self, method: str, status: int) -> None:
        self._requests.labels(str(status) if status else "<error>", method).inc()

    def event(self, outcome: str) -> None:
        self._events.labels(outcome).inc()

    def show_leading(self, name: str, leads: Callable[[], bool]) -> None:
        self._leading.labels(name).set_function(lambda: float(leads()))

    def page(self) -> tuple[str, bytes]:
        """Content type and body of /metrics."""
        return CONTENT_TYPE_LATEST, generate_latest(self.registry)


class QueueMetrics:
    """A `QueueObserver`; `show` adds what is only known when asked."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._name, self._registry = name, metrics.registry
        self._depth = self._gauge("depth", "Keys that wait for a worker.")
        self._adds = self._counter("adds", "Keys added.")
        self._retries = self._counter("retries", "Keys added after a failure.")
        self._waited = self._histogram("queue_duration_seconds", "How long a key waited for a worker.")
        self._worked = self._histogram("work_duration_seconds", "How long a worker took for a key.")

    def show(self, queue: WorkQueue) -> None:
        unfinished = self._gauge("unfinished_work_seconds", "Seconds of work under way.")
        unfinished.set_function(lambda: sum(queue.working_seconds()))
        longest = self._gauge("longest_running_processor_seconds", "Seconds of the pass that is longest under way.")
        longest.set_function(lambda: max(queue.working_seconds(), default=0.0))

    def added(self, depth: int) -> None:
        self._adds.inc()
        self._depth.set(depth)

    def taken(self, depth: int, waited: float) -> None:
        self._depth.set(depth)
        self._waited.observe(waited)

    def finished(self, worked: float) -> None:
        self._worked.observe(worked)

    def retried(self) -> None:
        self._retries.inc()

    def _gauge(self, name: str, told: str) -> Gauge:
        return Gauge(f"workqueue_{name}", told, ["name"], registry=self._registry).labels(self._name)

    def _counter(self, name: str, told: str) -> Counter:
        return Counter(f"workqueue_{name}", told, ["name"], registry=self._registry).labels(self._name)

    def _histogram(self, name: str, told: str) -> Histogram:
        made = Histogram(f"workqueue_{name}", told, ["name"], registry=self._registry, buckets=QUEUE_SECONDS)
        return made.labels(self._name)


class ReconcileMetrics:
    """A `ReconcileObserver`."""

    def __init__(self, metrics: Metrics, controller: str) -> None:
        self._controller, registry = controller, metrics.registry
        name = "controller_runtime_reconcile"
        self._total = Counter(name, "Reconciles, by how they ended.", ["controller", "result"], registry=registry)
        errors = Counter(f"{name}_errors", "Reconciles that failed.", ["controller"], registry=registry)
        told = "Duration of a reconcile."
        seconds = Histogram(f"{name}_time_seconds", told, ["controller"], registry=registry, buckets=RECONCILE_SECONDS)
        self._errors, self._seconds = errors.labels(controller), seconds.labels(controller)

    def reconciled(self, outcome: Outcome, seconds: float) -> None:
        self._total.labels(self._controller, outcome).inc()
        self._seconds.observe(seconds)
        if outcome == "error":
            self._errors.inc()
