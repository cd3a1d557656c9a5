"""Every part of the operator, put together: what each is given, in which order they start and end.

In: options. Out: a running operator. Standbys watch too, so that a new leader knows all it needs at once; only the
leader reconciles.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Any

from controller import __version__, names
from controller.cluster.apply import Cluster
from controller.cluster.installed import kueue_workloads
from controller.cluster.resources import workloads
from controller.cluster.watching import Watching
from controller.operator.doors import Doors, progress_url
from controller.operator.jobmetrics import JobMetrics
from controller.operator.options import Options
from controller.progress.reports import Reports
from controller.runtime.client import Api, ApiError
from controller.runtime.election import LeaseElection
from controller.runtime.events import EventRecorder
from controller.runtime.metrics import Metrics, QueueMetrics, ReconcileMetrics
from controller.runtime.queue import WorkQueue
from controller.runtime.serving import Serving
from controller.runtime.workers import Workers
from controller.settings import Settings

CONTROLLER = "grpojob"
REPORTER = f"{names.API_GROUP}/operator"
KUEUE_VERSION = "v1beta2"
"""Asked for where no Kueue is there yet to say which it prefers."""

log = logging.getLogger(__name__)


class Operator:
    """Starts with `start`, which returns at once, and ends with `stop`, which lets passes under way end."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._metrics = Metrics()
        self.api = Api.connect(options.kubeconfig, f"grpo-operator/{__version__}", self._metrics.requested)
        self._queue = self._make_queue()
        reports = Reports(self._queue.add)
        self._watching = Watching(self._queue.add, reports.forget, options.namespaces)
        self._leading = threading.Event()
        self.doors = Doors(options, self.api, self._watching, self._leading.is_set, reports)
        self._recorder = EventRecorder(self.api, REPORTER, options.identity, self._metrics.event)
        self._cluster = Cluster(
            self.api,
            self._watching,
            Settings(image=options.image, progress_url=progress_url(options)),
            self._recorder,
            reports=reports.latest,
            prepare=self.doors.prepare,
            told=JobMetrics(self._metrics.registry, self._watching.jobs).told,
            now=self.api.clock.now,
        )
        self._reflectors = self._watching.reflectors(self.api)
        observer = ReconcileMetrics(self._metrics, CONTROLLER)
        self._workers = Workers(self._queue, self._cluster.reconcile, options.workers, observer, self._describe)
        self._election = self._make_election()
        self._serving = self._make_serving()
        self._ending = threading.Event()
        self._resync = threading.Thread(target=self._look_again, name="resync", daemon=True)

    def start(self) -> None:
        log.info("grpo-operator %s starts as %s", __version__, self._options.identity)
        if self._serving is not None:
            self._serving.start()
        self._reflectors += self._watching.workload_reflectors(self.api, self._workloads())
        for reflector in self._reflectors:
            reflector.start()
        self._recorder.start()
        self.doors.start()
        self._resync.start()
        if self._election is not None:
            self._election.start()
        else:
            threading.Thread(target=self._lead, name="leading", daemon=True).start()

    def stop(self) -> None:
        """Passes first, then their events; the lease is given up when nothing of ours can write any more."""
        log.info("grpo-operator stops")
        self._ending.set()
        if self._leading.is_set() and not self._workers.stop(self._options.stop_seconds):
            log.warning("a pass was cut short; whoever comes next goes on from the status")
        self._recorder.stop()
        if self._election is not None:
            self._election.stop()
        self.doors.stop()
        for reflector in self._reflectors:
            reflector.stop()
        if self._serving is not None:
            self._serving.stop()
        self.api.close()

    # --- the parts

    def _make_queue(self) -> WorkQueue:
        observer = QueueMetrics(self._metrics, CONTROLLER)
        queue = WorkQueue(observer=observer)
        observer.show(queue)
        return queue

    def _make_election(self) -> LeaseElection | None:
        options = self._options
        if not options.leader_election:
            return None
        election = LeaseElection(self.api, options.own_namespace, options.lease, options.identity, self._lead)
        self._metrics.show_leading(options.lease, lambda: election.is_leader)
        return election

    def _make_serving(self) -> Serving | None:
        if self._options.metrics is None:
            return None
        return Serving(self._options.metrics, {"parts": self._fault}, {"watches": self._unready}, self._metrics.page)

    def _workloads(self) -> Any:
        try:
            return kueue_workloads(self.api) or workloads(KUEUE_VERSION)
        except ApiError as error:
            log.warning("whether Kueue is here is not known: %s", error)
            return workloads(KUEUE_VERSION)

    # --- what they do

    def _lead(self) -> None:
        """Once everything is known that watches tell."""
        for store in self._watching.stores:
            while not store.wait_synced(1.0):
                if self._ending.is_set():
                    return
        self._leading.set()
        self.doors.lead()
        self._workers.start()
        log.info("reconciling %d jobs", len(self._watching.jobs))

    def _look_again(self) -> None:
        while not self._ending.wait(60 * self._options.resync_minutes):
            for key in self._watching.jobs.keys():  # noqa: SIM118 - a store is no mapping
                self._queue.add(key)

    def _describe(self, key: str) -> Mapping[str, str]:
        namespace, _, name = key.partition("/")
        job = self._watching.jobs.get(key)
        uid = {"uid": job["metadata"]["uid"]} if job is not None else {}
        return {"namespace": namespace, "job": name, **uid}

    def _fault(self) -> str | None:
        """What is dead and will not come back: the process is better begun anew."""
        if not all(reflector.is_alive for reflector in self._reflectors):
            return "a watch has ended"
        if self._leading.is_set() and not self._workers.is_alive:
            return "a worker has ended"
        return None if self._election is None or self._election.is_alive else "the election has ended"

    def _unready(self) -> str | None:
        if not all(store.has_synced for store in self._watching.stores):
            return "the first lists are not in"
        return self.doors.fault
