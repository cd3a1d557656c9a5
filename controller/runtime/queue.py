"""Which keys are to be looked at, each once and by one worker at a time; some later, some after a growing delay.

A key that is added while it is worked on is looked at again afterwards. Keys are all it knows.
"""

import heapq
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from controller.runtime.backoff import Backoff

FIRST_DELAY, LONGEST_DELAY = 0.05, 60.0


class QueueObserver(Protocol):
    """Hears what happens, under the queue's lock: it must be quick. Times are in seconds."""

    def added(self, depth: int) -> None: ...
    def taken(self, depth: int, waited: float) -> None: ...
    def finished(self, worked: float) -> None: ...
    def retried(self) -> None: ...


class WorkQueue:
    """For any number of threads. `clock` gives seconds that never go back; delays are in seconds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        first_delay: float = FIRST_DELAY,
        longest_delay: float = LONGEST_DELAY,
        observer: QueueObserver | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._clock, self._observer = clock, observer
        self._delays = first_delay, longest_delay, chance or random.Random()
        self._condition = threading.Condition()
        self._ready: deque[str] = deque()
        self._added: dict[str, float] = {}  # waiting in `_ready`, or for its worker to be done: since when
        self._working: dict[str, float] = {}  # since when
        self._later: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}  # of each key in `_later`, its earliest time
        self._backoffs: dict[str, Backoff] = {}
        self._shut = False

    def add(self, key: str) -> None:
        with self._condition:
            self._add(key, self._clock())

    def add_after(self, key: str, seconds: float) -> None:
        """At the earliest of the times that were asked for; an `add` before that changes nothing about it."""
        if seconds <= 0:
            self.add(key)
            return
        with self._condition:
            due = self._clock() + seconds
            if self._shut or due >= self._due.get(key, float("inf")):
                return
            self._due[key] = due
            heapq.heappush(self._later, (due, key))
            self._condition.notify()

    def add_rate_limited(self, key: str, at_least: float | None = None) -> float:
        """After a delay that grows with each call until `forget`; returns it."""
        with self._condition:
            backoff = self._backoffs.setdefault(key, Backoff(*self._delays))
            delay = backoff.next(at_least)
            if self._observer:
                self._observer.retried()
        self.add_after(key, delay)
        return delay

    def forget(self, key: str) -> None:
        with self._condition:
            self._backoffs.pop(key, None)

    def failures(self, key: str) -> int:
        with self._condition:
            return self._backoffs[key].failures if key in self._backoffs else 0

    def get(self, timeout: float | None = None) -> str | None:
        """The next key, which is the caller's until `done`; None after `timeout` seconds or once it is shut down."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while not self._shut:
                now = self._clock()
                self._move_due(now)
                if self._ready:
                    return self._take(now)
                waits = [self._later[0][0] - now] if self._later else []
                waits += [] if end is None else [end - time.monotonic()]
                if end is not None and waits[-1] <= 0:
                    return None
                self._condition.wait(min(waits, default=None))
            return None

    def done(self, key: str) -> None:
        with self._condition:
            now = self._clock()
            began = self._working.pop(key, now)
            if self._observer:
                self._observer.finished(now - began)
            if key in self._added:
                self._ready.append(key)
                self._condition.notify()

    def shut_down(self) -> None:
        """No more keys are handed out; keys that are worked on may be finished."""
        with self._condition:
            self._shut = True
            self._condition.notify_all()

    def __len__(self) -> int:
        """Keys that wait for a worker now."""
        return len(self._ready)

    def working_seconds(self) -> list[float]:
        """For how long each key that is worked on has been."""
        with self._condition:
            now = self._clock()
            return [now - began for began in self._working.values()]

    def _add(self, key: str, now: float) -> None:
        if self._shut or key in self._added:
            return
        self._added[key] = now
        if key not in self._working:
            self._ready.append(key)
            self._condition.notify()
        if self._observer:
            self._observer.added(len(self._ready))

    def _take(self, now: float) -> str:
        key = self._ready.popleft()
        waited = now - self._added.pop(key)
        self._working[key] = now
        if self._observer:
            self._observer.taken(len(self._ready), waited)
        return key

    def _move_due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            due, key = heapq.heappop(self._later)
            if self._due.get(key) == due:  # else an earlier time has stood in for this one
                del self._due[key]
                self._add(key, now)
