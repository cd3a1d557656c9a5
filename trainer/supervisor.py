"""Station 6, the entry: the parent of the trainer's process, PID 1 of a pod.

It forwards signals, reaps, waits for the end, tells it as an exit code of the contract and as a JSON cause in the
termination log, and leaves nothing behind. It refuses to know JAX: it must outlive whatever JAX does.
"""

import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from trainer.contract.exits import Cause, ExitCode
from trainer.contract.process import ENV_TERMINATION_LOG
from trainer.lookout import signals_as_bytes
from trainer.progress import ENV_LEDGER, Entry, Ledger
from trainer.starting import Start

PEER_LOST_SECONDS = 10.0
"""A process that lost a peer ends so much later, so that the peer's own cause is seen first."""
LOST_PEER = "the JAX distributed service detected fatal errors"
"""What JAX says as it aborts the survivors of a lost process:
https://github.com/openxla/xla/blob/main/xla/pjrt/distributed/client.h (seen with JAX 0.10.2)."""
_TAIL_BYTES = 16384
_MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def main(argv: list[str]) -> int:
    """Check the command line, then run the trainer with it, to its end."""
    Start.of(argv)
    return supervise([sys.executable, "-m", "trainer.worker", *argv], os.environ)


def supervise(command: Sequence[str], environ: Mapping[str, str], sleep: Callable[[float], None] = time.sleep) -> int:
    """Run the trainer to its end and return the exit code of the contract that it stands for."""
    killed_before = _memory_kills()
    with tempfile.TemporaryFile() as ledger:
        child = _Child(command, environ, ledger.fileno())
        status = child.wait()
        entry = Ledger.read(ledger.fileno())
    cause = judge(status, entry, child.last_words(), out_of_memory=_memory_kills() > killed_before)
    if cause.code is not ExitCode.DONE:
        print(f"trainer: {cause.name}, exit code {int(cause.code)}: {cause.message}", file=sys.stderr, flush=True)
        _write_termination_log(environ.get(ENV_TERMINATION_LOG), cause)
    if cause.code is ExitCode.PEER_LOST:
        sleep(PEER_LOST_SECONDS)
    return int(cause.code)


def judge(status: int, entry: Entry, last_words: str = "", *, out_of_memory: bool = False) -> Cause:
    """What an end means. `status` is an exit code, or minus the signal; `entry` is the trainer's last entry.

    JAX aborts the survivors of a lost process, and Python cannot keep it from that; only what it says tells such an
    abort from the trainer's own. A SIGTERM that came before the trainer could answer it has lost nothing.
    """
    if status >= 0 and entry.cause is not None and int(entry.cause.code) == status:
        return entry.cause
    code, message = _code_of(status, entry, last_words, out_of_memory)
    return Cause(code, entry.process, entry.step, None, message)


def _code_of(status: int, entry: Entry, last_words: str, out_of_memory: bool) -> tuple[ExitCode, str]:
    if status == 0:
        return ExitCode.DONE, ""
    doing = f" ({entry.doing})" if entry.doing else ""
    if status in (-signal.SIGABRT, 128 + signal.SIGABRT):
        if LOST_PEER in last_words:
            text = f"JAX ended this process{doing}: another one was lost or never came, and its log holds the cause"
            return ExitCode.PEER_LOST, text
        return ExitCode.FAILED, f"the trainer aborted{doing}: {_fatal_line(last_words)}"
    if status == -signal.SIGKILL and out_of_memory:
        return ExitCode.OUT_OF_MEMORY, f"the kernel killed the trainer{doing}: the container's host memory is spent"
    if status == -signal.SIGTERM:
        return ExitCode.PREEMPTED, "asked to stop before training began"
    if status < 0:
        return ExitCode.FAILED, f"the trainer was ended by {signal.Signals(-status).name}{doing}"
    if status in map(int, ExitCode):
        return ExitCode(status), f"the trainer ended with exit code {status} and left no cause; its log may tell more"
    return ExitCode.FAILED, f"the trainer ended with exit code {status}, which is none of its own"


def _fatal_line(last_words: str) -> str:
    """The line with which a C++ library aborts (`F1124 10:41:23.471964 24105 file.cc:80] …`), else the last one."""
    lines = last_words.strip().splitlines() or ["it said nothing"]
    return next((line for line in reversed(lines) if re.match(r"F\d{4} ", line)), lines[-1])


class _Child:
    """The trainer's process, in a process group of its own: a terminal's Ctrl-C reaches it through us, once."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], ledger: int) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._pid: int | None = None
        self._asked_at: float | None = None
        self._pending = False
        self._signals = signals_as_bytes()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for signum in _FORWARDED:
            signal.signal(signum, self._forward)
        process = subprocess.Popen(
            command,
            env={**environ, ENV_LEDGER: str(ledger)},
            pass_fds=(ledger,),
            stderr=subprocess.PIPE,
            process_group=0,
            preexec_fn=_die_with_parent,
        )
        self._pid = process.pid
        self._said = b""
        self._listener = threading.Thread(target=self._pass_on, args=(process.stderr,), daemon=True)
        self._listener.start()
        if self._pending:
            self._terminate(signal.SIGTERM)

    def wait(self) -> int:
        """Exit code, or minus the signal. Orphans that come to us are reaped on the way; the group is gone after it.

        A signal that comes just before a blocking `waitpid` would be forwarded only after it; it ends this `select`.
        """
        while (ended := self._reap()) is None:
            select.select([self._signals], [], [])
            self._signals.recv(4096)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(ended[0], signal.SIGKILL)
        self._pid = None
        return os.waitstatus_to_exitcode(ended[1])

    def _reap(self) -> tuple[int, int] | None:
        """Pid and status of the trainer once it has ended."""
        while (ended := os.waitpid(-1, os.WNOHANG))[0] not in (0, self._pid):
            continue
        return ended if ended[0] else None

    def last_words(self) -> str:
        """The end of what the trainer wrote to stderr, once it has ended."""
        self._listener.join(timeout=2.0)  # a process that escaped from the group may still hold the other end
        return self._said.decode(errors="replace")

    def _pass_on(self, errors: "IO[bytes]") -> None:
        while text := os.read(errors.fileno(), 65536):
            self._said = (self._said + text)[-_TAIL_BYTES:]
            with suppress(OSError):
                os.write(sys.stderr.fileno(), text)

    def _forward(self, signum: int, _frame: object) -> None:
        """The trainer knows one request, to stop at the next safe point; a later second Ctrl-C will not wait for it."""
        again = self._asked_at is not None and time.monotonic() - self._asked_at > 1.0
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        if signum == signal.SIGINT:
            text = "killing the trainer" if again else "stopping at the next safe point; Ctrl-C again kills"
            print(f"{_line_begins()}trainer: {text}", file=sys.stderr, flush=True)
        self._terminate(signal.SIGKILL if again and signum == signal.SIGINT else signal.SIGTERM)

    def _terminate(self, signum: int) -> None:
        if self._pid is None:
            self._pending = True
            return
        with suppress(ProcessLookupError):
            os.kill(self._pid, signum)


def _line_begins() -> str:
    """What clears the line at the foot of a terminal, where the trainer tells what it does: it is drawn anew below."""
    moves = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return "\r\x1b[K" if moves else ""


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _memory_kills() -> int:
    """How often the kernel's out-of-memory killer struck in this container; 0 where there is no cgroup v2."""
    with suppress(OSError, ValueError):
        lines = _MEMORY_EVENTS.read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def _write_termination_log(path: str | None, cause: Cause) -> None:
    if path:
        with suppress(OSError):
            Path(path).write_text(cause.to_json())
