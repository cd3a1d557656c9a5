"""Keeps a store like the server: lists, then watches, and says what has changed. It decides nothing about objects.

A watch that ends goes on from the last version seen; a version that is gone, and a kind that is gone, are listed again.
Errors are waited out with back-off, for ever: only `stop` ends it.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from controller.runtime.backoff import Backoff
from controller.runtime.client import STALL_SECONDS, Api, ApiError, Json, Resource, Watch
from controller.runtime.store import Change, Store

PAGE = 500
FIRST_DELAY, LONGEST_DELAY = 0.2, 30.0
SHORT_WATCH_SECONDS = 1.0
WATCH_SECONDS = (300, 600)
JOIN_SECONDS = 5.0
log = logging.getLogger(__name__)


def without_managed_fields(found: Json) -> Json:
    """A third of an object's size, which no reconcile reads."""
    found["metadata"].pop("managedFields", None)
    return found


class Reflector:
    """`on_change(old, new)` is called on the reflector's thread, with None for what was not or is no longer there.

    On a deletion `old` is the last state that the server had. `on_presence` hears when the server turns out to lack the
    kind (its CRD is not installed), and when it has it: until then the store counts as synced, and empty.
    """

    def __init__(
        self,
        api: Api,
        resource: Resource,
        store: Store,
        on_change: Callable[[Json | None, Json | None], None],
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        transform: Callable[[Json], Json] = without_managed_fields,
        on_presence: Callable[[bool], None] = lambda present: None,
        stall_seconds: float = STALL_SECONDS,
        chance: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._resource, self._store = api, resource, store
        self._on_change, self._on_presence, self._transform = on_change, on_presence, transform
        self._where: dict[str, Any] = {
            "namespace": namespace,
            "label_selector": label_selector,
            "field_selector": field_selector,
        }
        self._stall_seconds, self._clock = stall_seconds, clock
        self._chance = chance or random.Random()
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY, self._chance)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._version: str | None = None  # of the last event, or of the list; None: list again
        self._thread = threading.Thread(target=self._run, name=f"reflector-{resource.plural}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch; returns when the thread has ended, after 5 s at the latest."""
        self._stopping.set()
        with self._lock:
            if self._watch is not None:
                self._watch.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            began, failure = self._clock(), None
            try:
                if self._version is None:
                    self._version = self._list()
                self._follow(self._version)
            except ApiError as error:
                failure = error
                if error.is_gone or error.is_not_found:
                    self._version = None
            if failure or self._clock() - began < SHORT_WATCH_SECONDS:
                self._wait(failure)

    def _wait(self, failure: ApiError | None) -> None:
        if self._stopping.is_set() or (failure is not None and failure.is_gone and self._backoff.failures == 0):
            self._backoff.failures += 1
            return
        delay = self._backoff.next(failure.retry_after if failure else None)
        level = logging.INFO if failure is None or failure.is_gone or failure.is_not_found else logging.WARNING
        log.log(level, "watch of %s: %s; again in %.1f s", self._resource.plural, failure or "ended at once", delay)
        self._stopping.wait(delay)

    def _list(self) -> str:
        """The version that the store is at now; raises `ApiError`."""
        found: list[Json] = []
        resume: str | None = None
        while True:
            try:
                page = self._api.list(self._resource, limit=PAGE, resume=resume, **self._where)
            except ApiError as error:
                if error.is_not_found:
                    self._replace([], None, present=False)
                raise
            found += map(self._transform, page["items"])
            resume = page["metadata"].get("continue")
            if not resume:
                version: str = page["metadata"]["resourceVersion"]
                self._replace(found, int(version), present=True)
                return version

    def _replace(self, found: list[Json], version: int | None, *, present: bool) -> None:
        known, was_absent = self._store.has_synced, self._store.absent
        self._store.absent = not present
        for change in self._store.replace(found, version, self._where["namespace"]):
            self._tell(change)
        if was_absent == present or (not present and not known):
            self._on_presence(present)

    def _follow(self, version: str) -> None:
        """Until the watch ends; raises `ApiError`."""
        seconds = self._chance.randint(*WATCH_SECONDS)
        watch = self._api.watch(
            self._resource, resource_version=version, seconds=seconds, stall_seconds=self._stall_seconds, **self._where
        )
        with self._lock:
            self._watch = watch
            if self._stopping.is_set():
                watch.close()
        for kind, found in watch:
            if kind in {"ADDED", "MODIFIED"}:
                self._tell(self._store.put(self._transform(found)))
            elif kind == "DELETED":
                self._tell(self._store.remove(self._transform(found)))
            self._version = found["metadata"]["resourceVersion"]
            self._backoff.reset()

    def _tell(self, change: Change | None) -> None:
        if change is None:
            return
        try:
            self._on_change(*change)
        except Exception:
            log.exception("a change of %s was not taken in", self._resource.plural)
