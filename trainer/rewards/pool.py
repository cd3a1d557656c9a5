"""Several processes that answer calls side by side: what hangs in one is killed there, and holds up nobody else.

Calls come in, one outcome per call goes out, in their order. It refuses to know what is called.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from trainer.rewards.isolated import CallFailedError, IsolatedFunction, Target
from trainer.rewards.loading import LoadError

MOST_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """The number of a call, or None; `error` tells why there is none where that is a fault and no choice."""

    value: float | None
    error: str | None = None


class Pool:
    """Processes are started when the first calls need them, and stay."""

    def __init__(self, target: Target, workers: int | None = None) -> None:
        self._seconds = target.timeout_seconds
        self._workers = [IsolatedFunction(target) for _ in range(workers or min(MOST_WORKERS, os.cpu_count() or 1))]

    def call_each(self, calls: Sequence[dict[str, Any]], longest: float) -> list[Outcome]:
        """One number per call; each call may take `longest` seconds, all together the target's `timeout_seconds`.

        What is not answered by then has the reason for an error. Starting the processes is not counted.
        """
        if not calls:
            return []
        workers = self._workers[: len(calls)]
        with ThreadPoolExecutor(len(workers)) as threads:
            try:
                list(threads.map(IsolatedFunction.start, workers))
            except LoadError as error:
                return [Outcome(None, str(error))] * len(calls)
            free: SimpleQueue[IsolatedFunction] = SimpleQueue()
            for worker in workers:
                free.put(worker)
            end = time.monotonic() + self._seconds
            return list(threads.map(lambda call: self._outcome(free, call, longest, end), calls))

    def _outcome(
        self, free: "SimpleQueue[IsolatedFunction]", keywords: dict[str, Any], longest: float, end: float
    ) -> Outcome:
        worker = free.get()
        try:
            left = end - time.monotonic()
            if left <= 0:
                return Outcome(None, f"no time left of {self._seconds:g} s for all")
            return Outcome(worker.call(keywords, 1, seconds=min(longest, left))[0])
        except CallFailedError as failure:
            return Outcome(None, str(failure))
        finally:
            free.put(worker)

    def longest_seconds(self) -> float:
        return max(worker.longest_seconds() for worker in self._workers)

    def abandon(self) -> None:
        for worker in self._workers:
            worker.abandon()

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()
