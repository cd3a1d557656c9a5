"""Says in Kubernetes events what happened to an object: `kubectl describe` shows them. It never holds a reconcile up.

Repetitions become one event with a series. What is over budget, refused or too much to hold is dropped and counted:
events are for people, and nothing may depend on them.
"""

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from controller.runtime.client import Api, ApiError, Json, Resource
from controller.runtime.series import Correlator, Key, Series

EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
LONGEST_NOTE = 1024
MOST_WAITING = 1000
TRIES, RETRY_SECONDS = 3, 1.0
CALL_SECONDS = 5.0
log = logging.getLogger(__name__)


class EventRecorder:
    """`controller` is who reports, such as `grpo.dev/operator`; `instance` is which replica of it."""

    def __init__(
        self,
        api: Api,
        controller: str,
        instance: str = "",
        observe: Callable[[str], None] = lambda outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._observe, self._clock = api.within(CALL_SECONDS), observe, clock
        self._controller, self._instance = controller, instance or controller
        self._waiting: queue.Queue[tuple[Key, Json] | None] = queue.Queue(MOST_WAITING)
        self._correlator = Correlator()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Sends what is waiting, for so many seconds."""
        if not self._thread.is_alive():
            return
        try:
            self._waiting.put(None, timeout=seconds)
            self._thread.join(seconds)
        except queue.Full:
            log.warning("events are left unsent")
        self._stopping.set()

    def event(
        self,
        regarding: Json,
        type: Literal["Normal", "Warning"],  # noqa: A002 (the API's word)
        reason: str,
        note: str,
        action: str = "Reconcile",
    ) -> None:
        """`regarding` is the object; returns at once. Call it after what it speaks of is stored."""
        body = self._body(regarding, type, reason, note, action)
        key = (regarding["metadata"]["uid"], type, reason, action, body["note"])
        try:
            self._waiting.put_nowait((key, body))
        except queue.Full:
            self._observe("dropped")

    def _body(self, regarding: Json, severity: str, reason: str, note: str, action: str) -> Json:
        metadata = regarding["metadata"]
        about = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion") if name in metadata}
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"namespace": metadata.get("namespace", "default")},
            "regarding": {"apiVersion": regarding["apiVersion"], "kind": regarding["kind"], **about},
            "type": severity,
            "reason": reason,
            "note": note if len(note.encode()) <= LONGEST_NOTE else _cut(note),
            "action": action,
            "eventTime": _now(),
            "reportingController": self._controller,
            "reportingInstance": self._instance,
        }

    def _run(self) -> None:
        while True:
            due = self._correlator.next_due()
            try:
                taken = self._waiting.get(timeout=None if due is None else max(0.0, due - self._clock()))
            except queue.Empty:
                for grown in self._correlator.due(self._clock()):
                    self._send(grown)
                continue
            if taken is None:
                return
            series = self._correlator.take(*taken, self._clock())
            if series is not None:
                self._send(series)
            elif taken[0] not in self._correlator.series:
                self._observe("dropped")

    def _send(self, series: Series) -> None:
        """Tried a few times, then told no more until it happens again."""
        series.told_at, series.told_count = self._clock(), series.count
        for left in reversed(range(TRIES)):
            try:
                self._write(series)
                self._observe("sent")
                return
            except ApiError as error:
                if error.is_not_found:
                    series.name = None  # its event has expired: another one is made
                if left == 0 or not (error.is_transient or error.is_not_found):
                    log.warning("event %s not sent: %s", series.body["reason"], error)
                    break
                self._stopping.wait(max(RETRY_SECONDS, error.retry_after or 0))
        self._observe("dropped")

    def _write(self, series: Series) -> None:
        namespace = series.body["metadata"]["namespace"]
        repeated = {"series": {"count": series.count, "lastObservedTime": _now()}} if series.count > 1 else {}
        if series.name is not None:
            self._api.patch(EVENTS, series.name, namespace, repeated)
            return
        name = f"{series.body['regarding']['name'][:200]}.{uuid.uuid4().hex[:16]}"
        self._api.create(
            EVENTS, {**series.body, **repeated, "metadata": {"name": name, "namespace": namespace}}, namespace
        )
        series.name = name


def _cut(note: str) -> str:
    return note.encode()[: LONGEST_NOTE - 3].decode(errors="ignore") + "…"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
