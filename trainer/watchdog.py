"""The trainer's own watch: a heartbeat that stands still for too long ends the process, with its stacks written down.

Any finished unit of work beats: a pass of completions, its rewards, an update, an evaluation batch, a checkpoint.
"""

import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOADING_SECONDS = 3600.0
"""Until the first step is done: weights are read, and every program is compiled once."""
_LOOK_SECONDS = 1.0


class Heartbeat:
    """A counter that finished work advances, with the time of its last beat, and the phase that the run is in."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = self._entered = now()
        self.count = 0
        self.phase = "loading"

    def beat(self) -> None:
        self.count += 1
        self._last = self._now()

    def enter(self, phase: str) -> None:
        """A phase begins; it is no finished work, and does not beat."""
        self.phase, self._entered = phase, self._now()

    @property
    def phase_seconds(self) -> float:
        return self._now() - self._entered

    @property
    def silent_seconds(self) -> float:
        return self._now() - self._last


class Watchdog:
    """Calls `on_stall(message)` once, from a thread of its own, when the heartbeat is silent for `deadline_seconds`.

    Until `running` is called the deadline is at least `LOADING_SECONDS`.
    """

    def __init__(self, heartbeat: Heartbeat, deadline_seconds: float, on_stall: Callable[[str], None]) -> None:
        self._heartbeat = heartbeat
        self._running_deadline = deadline_seconds
        self._deadline = max(deadline_seconds, LOADING_SECONDS)
        self._on_stall = on_stall
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def running(self) -> None:
        self._deadline = self._running_deadline

    def stop(self) -> None:
        self._ended.set()

    def stalled(self) -> str | None:
        """What to say when the deadline has passed, else None."""
        silent = self._heartbeat.silent_seconds
        if silent <= self._deadline:
            return None
        return f"no progress for {silent:.0f} s (progress_deadline_seconds is {self._running_deadline:g})"

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            message = self.stalled()
            if message is not None:
                self._on_stall(message)
                return


def write_stacks(path: Path) -> None:
    """The stack of every thread, into a file of the run folder and onto stderr."""
    faulthandler.dump_traceback(sys.stderr)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            faulthandler.dump_traceback(file)
