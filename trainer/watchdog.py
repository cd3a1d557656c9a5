"""The trainer's own watch: a heartbeat that stands still for too long ends the process, with its stacks written down.

Any finished unit of work beats: a chunk of tokens, the rewards of a pass, an update, a batch of an evaluation, a
checkpoint. What is known to take long has time of its own: compiling, loading, saving, a reward up to its deadline.
"""

import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOADING_SECONDS = 3600.0
"""Until the first step is done: weights are read, and every program is compiled once. A program that is compiled
later may take as long, and so may a checkpoint on its way to a slow bucket."""
_LOOK_SECONDS = 1.0


class Heartbeat:
    """A counter that finished work advances, with the time of its last beat, and what is under way since.

    `phase` is a word or two; `tell` is given it with its step, whenever another begins.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.tell: Callable[[str], None] = lambda _: None
        self._now = now
        self._last = self._entered = now()
        self._extra = 0.0
        self.count = 0
        self.phase = self.doing = "loading"

    def beat(self) -> None:
        self.count += 1
        self._last, self._extra = self._now(), 0.0

    def begin(self, phase: str, step: int | None = None, extra_seconds: float = 0.0) -> None:
        """Other work begins, which may be silent for so much longer than the deadline."""
        self.beat()
        self.phase, self.doing = phase, phase if step is None else f"{phase} of step {step}"
        self._entered, self._extra = self._now(), extra_seconds
        self.tell(self.doing)

    def extend(self, seconds: float) -> None:
        """Until the next beat, silence may last so much longer than the deadline."""
        self._extra = max(self._extra, seconds)

    @property
    def phase_seconds(self) -> float:
        return self._now() - self._entered

    @property
    def extra_seconds(self) -> float:
        """What the work under way may take beyond any deadline."""
        return self._extra

    @property
    def silent_seconds(self) -> float:
        """Those that the work under way does not account for."""
        return self._now() - self._last - self._extra


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

    @property
    def patience_seconds(self) -> float:
        """How long the work under way may be silent before it counts as stalled."""
        return self._deadline + self._heartbeat.extra_seconds

    def stalled(self) -> str | None:
        """What to say when the deadline has passed, else None."""
        silent = self._heartbeat.silent_seconds
        if silent <= self._deadline:
            return None
        doing = self._heartbeat.doing
        return f"{doing}: no progress for {silent:.0f} s (progress_deadline_seconds is {self._running_deadline:g})"

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
