"""Parent of one local process, as the container runtime is in a pod: a program of its own, standard library only.

    python -I -S shim.py LIFELINE SANDBOX COMMAND…

LIFELINE is the reading end of a pipe whose writing end only `grpoctl run` holds. `T` on it ends the command with
SIGTERM, `K` kills it; its end of file means that grpoctl is gone, however it went: both, ten seconds apart, and then
the folder SANDBOX, which may hold Secrets, is removed in its place. When the command ends, all that it left behind is
killed, and its exit code becomes the shim's, as a container's would (128 + N).
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ORPHAN_SECONDS = 10.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
LINUX = sys.platform == "linux"


def main(lifeline: int, sandbox: str, command: list[str]) -> int:
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakeup = _signals_as_bytes()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    code = _watch(child, lifeline, wakeup)
    if LINUX:  # elsewhere grpoctl ends the process group when we are gone
        _kill_all()
    if _is_orphan(lifeline):
        _remove(Path(sandbox))
    return code if code >= 0 else 128 - code


def _watch(child: "subprocess.Popen[bytes]", lifeline: int, wakeup: int) -> int:
    readable, kill_at = [lifeline, wakeup], None
    while True:
        timeout = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        ready, _, _ = select.select(readable, [], [], timeout)
        if not ready:
            _kill_all()
            kill_at = None
        if wakeup in ready:
            if signal.SIGTERM in os.read(wakeup, 512):
                _signal(child, signal.SIGTERM)
            code = _reap(child)
            if code is not None:
                return code
        if lifeline in ready:
            order = os.read(lifeline, 1)
            if order != b"K":
                _signal(child, signal.SIGTERM)
            else:
                _kill_all()
            if not order:
                readable.remove(lifeline)
                kill_at = time.monotonic() + ORPHAN_SECONDS


def _is_orphan(lifeline: int) -> bool:
    readable, _, _ = select.select([lifeline], [], [], 0)
    return bool(readable) and os.read(lifeline, 1) == b""


def _remove(sandbox: Path) -> None:
    """The folders above it go too, by whose shim is the last."""
    shutil.rmtree(sandbox, ignore_errors=True)
    with contextlib.suppress(OSError):
        sandbox.parent.rmdir()
        sandbox.parent.parent.rmdir()


def _signals_as_bytes() -> int:
    """SIGTERM and SIGCHLD as bytes on a pipe: nothing happens inside a handler, and none is missed."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for signum in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(signum, lambda *_: None)
    for signum in (signal.SIGINT, signal.SIGHUP):  # a terminal's; grpoctl decides what they mean
        signal.signal(signum, signal.SIG_IGN)
    return reading


def _die_with_parent() -> None:
    """The command must not outlive a shim that is killed."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _signal(child: "subprocess.Popen[bytes]", signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signum)


def _reap(child: "subprocess.Popen[bytes]") -> int | None:
    """The command's exit code if it has ended; orphans that came to us are collected on the way."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return child.returncode
        if pid == 0:
            return child.returncode
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)


def _kill_all() -> None:
    """All that descends from here, in whatever session; where there is no /proc, the process group and so us too."""
    if not LINUX:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    for _ in range(100):
        alive = [pid for pid in _descendants(os.getpid()) if not _is_zombie(pid)]
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_descendants(child)]
    return found


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
