"""The supervisor: how a trainer's end becomes an exit code and a cause, with real processes where signals matter."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.contract.exits import Cause, ExitCode
from trainer.progress import Entry, Ledger
from trainer.supervisor import judge

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a pod's entry needs POSIX signals")

SUPERVISE = """
import os, sys
from trainer.supervisor import supervise
sys.exit(supervise([sys.executable, "-c", sys.argv[1]], os.environ, sleep=lambda seconds: print("waits", seconds)))
"""
LOST = (
    "F1124 10:41:23 24105 client.h:80] Terminating process because the JAX distributed service detected fatal errors."
)
TRAINER = """
import os, signal, subprocess, sys, time
from trainer.contract.exits import Cause, ExitCode
from trainer.progress import Entry, Ledger
ledger = Ledger.from_environment(os.environ)
"""

OBEDIENT = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("up", flush=True)
for _ in range(600):
    time.sleep(0.1)
"""
"""Many sleeps: a signal that comes just before one begins is heard only when that one is over."""


@pytest.mark.parametrize(
    ("status", "said", "out_of_memory", "code"),
    [
        (0, "", False, ExitCode.DONE),
        (-signal.SIGABRT, LOST, False, ExitCode.PEER_LOST),
        (134, LOST, False, ExitCode.PEER_LOST),
        (-signal.SIGABRT, "free(): invalid pointer", False, ExitCode.FAILED),
        (-signal.SIGKILL, "", False, ExitCode.FAILED),
        (-signal.SIGKILL, "", True, ExitCode.OUT_OF_MEMORY),
        (-signal.SIGSEGV, LOST, False, ExitCode.FAILED),
        (-signal.SIGTERM, "", False, ExitCode.PREEMPTED),
        (5, "", False, ExitCode.INPUT_NOT_REACHABLE),
        (77, "", False, ExitCode.FAILED),
    ],
)
def test_an_end_without_a_cause_is_judged_by_its_status(
    status: int, said: str, out_of_memory: bool, code: ExitCode
) -> None:
    """Aborts by JAX are lost peers, others failures; kills are failures or host memory; unknown codes are failures."""
    cause = judge(status, Entry(process=1, processes=2, step=3), said, out_of_memory=out_of_memory)
    assert (cause.code, cause.process, cause.step, cause.exception) == (code, 1, 3, None)


def test_a_violent_end_is_told_with_what_was_under_way() -> None:
    """A signal names the phase, an abort also the line with which a library gave up, whatever came after it."""
    entry = Entry(step=3, doing="update of step 4")
    assert judge(-signal.SIGKILL, entry).message == "the trainer was ended by SIGKILL (update of step 4)"
    fatal = "F1124 10:41:23.471964   24105 tile.cc:80] Check failed: a == b"
    said = f"loading\n{fatal}\n*** Check failure stack trace: ***\n    @ 0x7fa0\n"
    assert judge(-signal.SIGABRT, entry, said).message == f"the trainer aborted (update of step 4): {fatal}"


def test_a_cause_counts_only_with_the_exit_code_that_it_names() -> None:
    """A trainer that wrote a cause and then died of something else ended by that."""
    written = Cause(ExitCode.NON_FINITE, 0, 3, None, "loss is NaN")
    assert judge(7, Entry(cause=written)) == written
    assert judge(-signal.SIGSEGV, Entry(cause=written)).code is ExitCode.FAILED


def test_a_ledger_holds_the_last_entry(tmp_path: Path) -> None:
    """What was written last is read, and before anything was written there is an empty entry."""
    with (tmp_path / "ledger").open("w+b") as file:
        assert Ledger.read(file.fileno()) == Entry()
        ledger = Ledger(file.fileno())
        ledger.write(Entry(1, 2, 3, "", Cause(ExitCode.FAILED, 1, 3, "ValueError", "x" * 3000)))
        ledger.write(Entry(1, 2, 4, "export", Cause(ExitCode.FAILED, 1, 4, None, "ü")))
        assert Ledger.read(file.fileno()) == Entry(1, 2, 4, "export", Cause(ExitCode.FAILED, 1, 4, None, "ü"))


def start(trainer: str, log: Path) -> subprocess.Popen[str]:
    environ = {**os.environ, "GRPO_TERMINATION_LOG": str(log)}
    command = [sys.executable, "-c", SUPERVISE, TRAINER + trainer]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def test_the_cause_reaches_the_termination_log(tmp_path: Path) -> None:
    """The JSON cause of the trainer is written as it is, told on stderr, and its code is the exit code."""
    process = start(
        'ledger.write(Entry(1, 2, 5, "", Cause(ExitCode.NON_FINITE, 1, 5, None, "loss is NaN")))\nos._exit(7)',
        tmp_path / "log",
    )
    _, told = process.communicate(timeout=120)
    assert process.returncode == 7
    assert told == "trainer: NonFinite, exit code 7: loss is NaN\n"
    assert json.loads((tmp_path / "log").read_text()) == {
        "class": "NonFinite",
        "code": 7,
        "process": 1,
        "step": 5,
        "exception": None,
        "message": "loss is NaN",
    }


def test_a_lost_peer_is_told_late(tmp_path: Path) -> None:
    """An abort by JAX ends with 9, after ten seconds in which the peer's cause comes first."""
    process = start(f"ledger.write(Entry(0, 2, 5))\nprint({LOST!r}, file=sys.stderr)\nos.abort()", tmp_path / "log")
    out, said = process.communicate(timeout=120)
    assert (process.returncode, out) == (9, "waits 10.0\n")
    assert said.splitlines()[0] == LOST  # passed on
    assert Cause.from_json((tmp_path / "log").read_text()).step == 5


def test_signals_reach_the_trainer_and_success_leaves_no_cause(tmp_path: Path) -> None:
    """SIGTERM and a first Ctrl-C arrive as SIGTERM; a trainer that then ends well leaves an empty log."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        process = start(OBEDIENT, tmp_path / "log")
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signum)
        assert process.wait(timeout=120) == 0
        process.communicate()
        assert not (tmp_path / "log").exists()


def test_a_word_to_a_terminal_begins_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the trainer may have drawn a line at the foot of the terminal, that is cleared first."""
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    body = TRAINER + OBEDIENT
    with subprocess.Popen([sys.executable, "-c", SUPERVISE, body], stdout=subprocess.PIPE, stderr=theirs) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert os.read(ours, 100).startswith(b"\r\x1b[Ktrainer: stopping at the next safe point; Ctrl-C again kills")
    os.close(ours)
    os.close(theirs)


def test_a_second_interrupt_kills_a_trainer_that_does_not_stop(tmp_path: Path) -> None:
    """Ctrl-C twice, more than a second apart, does not wait for a safe point."""
    process = start('signal.signal(signal.SIGTERM, lambda *_: None)\nprint("up", flush=True)\ntime.sleep(60)', tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert told.splitlines()[-1] == "trainer: Failed, exit code 1: the trainer was ended by SIGKILL"


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Processes that the trainer started end with it, and the trainer ends with a supervisor that is killed."""
    ended = start(
        'child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])\nprint(child.pid, flush=True)',
        tmp_path / "log",
    )
    out, _ = ended.communicate(timeout=120)
    assert not _alive(int(out))
    killed = start("print(os.getpid(), flush=True)\ntime.sleep(60)", tmp_path / "log")
    assert killed.stdout is not None
    trainer = int(killed.stdout.readline())
    killed.kill()
    killed.communicate(timeout=120)
    assert not _alive(trainer)


def _alive(pid: int) -> bool:
    """Whether the process still runs a second later; a zombie does not."""
    for _ in range(20):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True
