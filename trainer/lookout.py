"""A thread beside the training: it hears what the main thread cannot while it compiles, computes or waits.

In: SIGTERM, and the notes that processes leave for one another. Out: a flag that safe points look at, or an end at once
where that loses nothing but the open step. It refuses to know what is trained, and how a process ends.
"""

import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, Protocol

from trainer.contract.exits import ExitCode

LOOK_SECONDS = 0.5
"""Between two looks at the notes of other processes."""

LEAVING_SECONDS = 10.0
"""So long is a process waited for that is to read why another one ends, and to write that down."""

NOTHING_LOST = "asked to stop; a later attempt goes on from the last checkpoint, and only the open step is lost"


def signals_as_bytes() -> socket.socket:
    """What becomes readable with each signal that has a Python handler: the signal's number, as a byte."""
    signals, waking = socket.socketpair()
    waking.setblocking(False)
    signal.set_wakeup_fd(waking.detach(), warn_on_full_buffer=False)
    return signals


class Board(Protocol):
    """Where notes are left: every process reads them all, without any of them waiting for another."""

    def post(self, name: str, text: str) -> None: ...

    def posted(self) -> dict[str, str]:
        """All notes, by name: `stop/1` is what process 1 said about stopping."""


class OwnBoard:
    """The board of a process that is alone, or has not met the others yet."""

    def __init__(self) -> None:
        self._notes: dict[str, str] = {}

    def post(self, name: str, text: str) -> None:
        self._notes[name] = text

    def posted(self) -> dict[str, str]:
        return dict(self._notes)


class Lookout:
    """Hears a request to stop, tells all processes, and ends this one where they all may be left as they are.

    `end(code, message)` does not return. `asked` is True in every process soon after any was asked to stop; the
    safe points agree on what follows.
    """

    def __init__(self, end: Callable[[ExitCode, str], NoReturn]) -> None:
        self.asked = False
        self._end = end
        self._board: Board = OwnBoard()
        self._index, self._processes = 0, 1
        self._nothing_to_lose: Callable[[], bool] = lambda: True
        self._on_stop: Callable[[], None] = lambda: None
        self._told = self._ready = self._sealed = False
        self._looking = threading.RLock()

    def listen(self) -> None:
        """From now on SIGTERM is heard. A Python handler would run only once the main thread is back in Python."""
        self._signals = signals_as_bytes()
        signal.signal(signal.SIGTERM, lambda *_: None)
        threading.Thread(target=self._watch, name="lookout", daemon=True).start()

    def join(self, board: Board, index: int, processes: int) -> None:
        """The processes have met: `board` is theirs."""
        with self._looking:
            self._board, self._index, self._processes = board, index, processes

    def part(self) -> None:
        """The processes leave the run together; there will be no more notes."""
        with self._looking:
            self._board, self._processes = OwnBoard(), 1

    @property
    def joined(self) -> bool:
        return self._processes > 1

    def guard(self, nothing_to_lose: Callable[[], bool], on_stop: Callable[[], None]) -> None:
        """Until now there was nothing to lose. `on_stop` is called once, to cut short what may take long."""
        with self._looking:
            self._nothing_to_lose, self._on_stop = nothing_to_lose, on_stop

    def seal(self) -> bool:
        """From now on the main thread alone decides; whether this process had said before that it may be left.

        Where all processes had, they are ending already.
        """
        with self._looking:
            self._sealed = True
            return self._ready

    def warn(self, code: ExitCode, message: str) -> None:
        """Tell the others why this process is about to end, and wait until they have written it down."""
        self._take_leave(f"{int(code)} {message}")

    def follow(self) -> None:
        """Tell the one who warned that this process has written down why it ends."""
        self._take_leave(None)

    def _take_leave(self, warning: str | None) -> None:
        """In a thread, because a coordinator that does not answer is not waited for."""
        if self.joined:
            leaving = threading.Thread(target=self._leave, args=(warning,), daemon=True)
            leaving.start()
            leaving.join(LEAVING_SECONDS)

    def _leave(self, warning: str | None) -> None:
        coordinates = self._index == 0
        with suppress(RuntimeError):
            if warning is not None:
                self._board.post(f"end/{self._index}", warning)
            self._board.post(f"over/{self._index}", "")
            while (coordinates or warning is not None) and not self._all_said("over"):
                time.sleep(LOOK_SECONDS / 5)
        if coordinates:
            time.sleep(2 * LOOK_SECONDS)  # it leaves last: JAX aborts who outlives the coordinator

    def _all_said(self, subject: str) -> bool:
        return len(_about(subject, self._board.posted())) == self._processes

    def look(self) -> None:
        """Read the notes and act on them; a thread does it all the time."""
        with self._looking:
            notes = self._board.posted()
            for process, text in _about("end", notes).items():
                if process != str(self._index):
                    self._end(*_told(process, text))
            self.asked = self.asked or bool(_about("stop", notes))
            if self.asked:
                self._obey()

    def _obey(self) -> None:
        if not self._told:
            self._told = True
            self._board.post(f"stop/{self._index}", "")
            self._on_stop()
        if not (self._ready or self._sealed) and self._nothing_to_lose():
            self._ready = True
            self._board.post(f"ready/{self._index}", "")
        if self._ready and self._all_said("ready"):
            self._end(ExitCode.PREEMPTED, NOTHING_LOST)

    def _watch(self) -> None:
        while True:
            self._hear()
            try:
                self.look()
            except RuntimeError:  # the coordinator does not answer: JAX is about to end this process
                continue

    def _hear(self) -> None:
        if select.select([self._signals], [], [], LOOK_SECONDS)[0] and signal.SIGTERM in self._signals.recv(4096):
            self.asked = True


def _about(subject: str, notes: dict[str, str]) -> dict[str, str]:
    """The notes on one subject, by the process that left them."""
    return {name.partition("/")[2]: text for name, text in notes.items() if name.startswith(f"{subject}/")}


def _told(process: str, text: str) -> tuple[ExitCode, str]:
    """How to end after another process told how it ends: a stall is common to all, a failure is its own."""
    code, _, message = text.partition(" ")
    if int(code) == ExitCode.STALLED:
        return ExitCode.STALLED, f"process {process}: {message}"
    return ExitCode.PEER_LOST, f"process {process} failed: {message}"
