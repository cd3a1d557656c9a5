"""One attempt of a job: starts its processes, streams their lines, and ends them all when one fails.

In: commands with their environments. Out: how each ended, in order of time. It holds no policy on what an exit means
(`verdict`) and none on another attempt (`run`).
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from controller.local import shim
from controller.local.verdict import Ending
from trainer.contract.exits import MAX_TERMINATION_BYTES

SETTLE_SECONDS = 1.0
"""After the first failure the others may end by themselves, with causes of their own, before they are asked to."""

PEER_GRACE_SECONDS = 15.0
"""Then to end after SIGTERM: a process that has lost a peer takes ten seconds to say so."""

KILL_SECONDS = 5.0
TAIL_LINES = 10

CHATTER = re.compile(r"\[Gloo\] Rank \d+ is connected|Expected number of connected peer ranks")
"""JAX's CPU collectives print this from C++ at every new group of devices, past every log level
(https://github.com/pytorch/gloo/blob/main/gloo/rendezvous/context.cc)."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start. `place` is where it stands, for people: `process 5 (slice 1, host 1)`.

    `sandbox` is its folder two levels below the run's temporary one, and goes with it.
    """

    index: int
    place: str
    command: Sequence[str]
    environment: Mapping[str, str]
    working_folder: Path
    sandbox: Path
    termination_log: Path


@dataclass(frozen=True, slots=True)
class Exited:
    index: int
    code: int


@dataclass(frozen=True, slots=True)
class Signalled:
    signum: int


Events = SimpleQueue[Exited | Signalled]
Print = Callable[[int, str], None]
"""(process index, line) to wherever a user reads."""


@dataclass(slots=True)
class _Process:
    launch: Launch
    shim: subprocess.Popen[str]
    lifeline: int
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    asked: bool = False
    threads: tuple[threading.Thread, ...] = ()

    def order(self, letter: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self.lifeline, letter)


def run_attempt(
    launches: Sequence[Launch], events: Events, show: Print, note: Callable[[str], None], grace_seconds: float
) -> tuple[list[Ending], int | None]:
    """Runs the processes to their end; returns their endings and the signal that stopped them, if one did.

    `events` carries the exits and the caller's `Signalled`. After a signal the processes have `grace_seconds`; a second
    one kills them. Nothing that was started is left when this returns.
    """
    processes = {launch.index: _start(launch, events, show) for launch in launches}
    try:
        return _Watch(processes, events, note, grace_seconds).to_the_end()
    finally:
        for process in processes.values():
            _clean(process)


class _Watch:
    """The state of one attempt: who still runs, and what happens next at which time."""

    def __init__(
        self, processes: dict[int, _Process], events: Events, note: Callable[[str], None], grace_seconds: float
    ):
        self.processes = processes
        self.running = set(processes)
        self.events = events
        self.note = note
        self.grace_seconds = grace_seconds
        self.endings: list[Ending] = []
        self.interrupted: int | None = None
        self.next: Callable[[], None] | None = None
        self.deadline: float | None = None

    def to_the_end(self) -> tuple[list[Ending], int | None]:
        while self.running:
            timeout = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            try:
                event = self.events.get(timeout=timeout)
            except Empty:
                self._act()
                continue
            if isinstance(event, Exited):
                self._on_exit(event)
            else:
                self._on_signal(event.signum)
        return self.endings, self.interrupted

    def _act(self) -> None:
        act, self.next, self.deadline = self.next, None, None
        if act is not None:
            act()

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self.next, self.deadline = act, time.monotonic() + seconds

    def _on_exit(self, exited: Exited) -> None:
        self.running.discard(exited.index)
        ending = _ending(self.processes[exited.index], exited.code)
        self.endings.append(ending)
        if ending.failed and self.running and self.next is None:
            self.note(f"{ending.place} ended with exit code {ending.code}; ending the others")
            self._after(SETTLE_SECONDS, lambda: self._stop(PEER_GRACE_SECONDS))

    def _on_signal(self, signum: int) -> None:
        if self.interrupted is not None:
            self.note("killing them")
            return self._kill()
        self.interrupted = signum
        asked = count_processes(len(self.running))
        self.note(f"{signal.Signals(signum).name}: asked {asked} to stop; once more kills")
        failed = any(ending.failed for ending in self.endings)
        return self._stop(PEER_GRACE_SECONDS if failed else self.grace_seconds)

    def _stop(self, grace_seconds: float) -> None:
        for index in self.running:
            self.processes[index].asked = True
            self.processes[index].order(b"T")
        self._after(grace_seconds, self._kill)

    def _kill(self) -> None:
        for index in self.running:
            self.processes[index].asked = True
            self.processes[index].order(b"K")
        self._after(KILL_SECONDS, self._kill_shims)

    def _kill_shims(self) -> None:
        for index in self.running:
            _kill_group(self.processes[index])
        self._after(KILL_SECONDS, self._kill_shims)


def count_processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _start(launch: Launch, events: Events, show: Print) -> _Process:
    reading, lifeline = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(shim.__file__), str(reading), str(launch.sandbox), *launch.command],
            cwd=launch.working_folder,
            env=dict(launch.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(reading,),
            start_new_session=True,  # a terminal's Ctrl-C reaches grpoctl alone
            encoding="utf-8",
            errors="replace",
        )
    finally:
        os.close(reading)
    process = _Process(launch, child, lifeline)
    reader = threading.Thread(target=_stream, args=(process, show), daemon=True)
    waiter = threading.Thread(target=_wait, args=(process, reader, events), daemon=True)
    process.threads = (reader, waiter)
    for thread in process.threads:
        thread.start()
    return process


def _stream(process: _Process, show: Print) -> None:
    assert process.shim.stdout is not None  # noqa: S101 - it was opened as a pipe
    for line in process.shim.stdout:
        text = line.rstrip("\n")
        if CHATTER.match(text):
            continue
        process.tail.append(text)
        show(process.launch.index, text)


def _wait(process: _Process, reader: threading.Thread, events: Events) -> None:
    code = process.shim.wait()
    _kill_group(process)
    reader.join(timeout=KILL_SECONDS)  # its last lines belong to its message
    events.put(Exited(process.launch.index, code if code >= 0 else 128 - code))


def _kill_group(process: _Process) -> None:
    """What the shim could not: a process in its group when the shim itself was killed."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.shim.pid, signal.SIGKILL)


def _clean(process: _Process) -> None:
    """Closing the lifeline ends what still runs, should an exception have brought us here."""
    os.close(process.lifeline)
    for thread in process.threads:
        thread.join(timeout=shim.ORPHAN_SECONDS + KILL_SECONDS)
    if process.shim.stdout is not None:
        process.shim.stdout.close()


def _ending(process: _Process, code: int) -> Ending:
    message = ""
    with contextlib.suppress(OSError):
        message = process.launch.termination_log.read_bytes()[:MAX_TERMINATION_BYTES].decode(errors="replace").strip()
    if not message and code != 0:
        message = "\n".join(process.tail)  # as terminationMessagePolicy FallbackToLogsOnError does
    return Ending(process.launch.index, process.launch.place, code, process.asked, message)
