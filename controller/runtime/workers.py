"""Threads that take keys from a queue and reconcile them; what fails is tried again, later each time.

What reconciling is comes in as a function. A failure of the API server's is a line in the log, one of ours a traceback.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from controller.runtime.client import ApiError
from controller.runtime.logs import fields
from controller.runtime.queue import WorkQueue

Outcome = Literal["success", "requeue_after", "error"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result:
    """A pass that went well; with `requeue_after` the key is looked at again after so many seconds."""

    requeue_after: float | None = None


class ReconcileObserver(Protocol):
    """Hears of each pass: how it ended and how many seconds it took."""

    def reconciled(self, outcome: Outcome, seconds: float) -> None: ...


class Workers:
    """`count` threads; `describe(key)` gives the fields that log lines of a pass carry."""

    def __init__(
        self,
        queue: WorkQueue,
        reconcile: Callable[[str], Result],
        count: int,
        observer: ReconcileObserver | None = None,
        describe: Callable[[str], Mapping[str, str]] = lambda key: {"key": key},
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue, self._reconcile, self._observer = queue, reconcile, observer
        self._describe, self._clock = describe, clock
        self._threads = [threading.Thread(target=self._run, name=f"worker-{i}", daemon=True) for i in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 10.0) -> bool:
        """Shuts the queue down and waits for passes under way; whether all have ended in time."""
        self._queue.shut_down()
        end = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def is_alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                with fields(**self._describe(key)):
                    self._work(key)
            finally:
                self._queue.done(key)

    def _work(self, key: str) -> None:
        began = self._clock()
        outcome: Outcome = "error"
        try:
            result = self._reconcile(key)
        except ApiError as error:
            delay = self._queue.add_rate_limited(key, error.retry_after)
            level = logging.INFO if error.is_conflict else logging.WARNING
            log.log(level, "reconcile: %s; again in %.2f s", error, delay)
        except Exception:
            delay = self._queue.add_rate_limited(key)
            log.exception("reconcile failed; again in %.2f s", delay)
        else:
            self._queue.forget(key)
            outcome = "success" if result.requeue_after is None else "requeue_after"
            if result.requeue_after is not None:
                self._queue.add_after(key, result.requeue_after)
        if self._observer:
            self._observer.reconciled(outcome, self._clock() - began)
