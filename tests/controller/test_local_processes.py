"""What happens to the processes of a local run: failures, signals, leftovers. Small programs stand for the trainer."""

import io
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from controller.local import Machine, attempt
from controller.local.run import run_manifests
from controller.render import Manifests

pytestmark = pytest.mark.skipif(os.name != "posix", reason="grpoctl run needs POSIX signals and says so elsewhere")

MANIFESTS = Path(__file__).parent / "rendered" / "cpu" / "manifests.yaml"
BOUND_SECONDS = 20.0

RUNNER = """
import sys
import yaml
from controller.local import Machine
from controller.local.run import run_manifests
from controller.render import Manifests

config_map, job_set = yaml.load_all(open(sys.argv[1], encoding="utf-8"), Loader=yaml.CSafeLoader)
(container,) = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
container["command"] = ["python", "-c", sys.argv[2]]
sys.exit(run_manifests(Manifests(config_map, job_set), machine=Machine.here(False)))
"""

PROGRAM = """
import json, os, signal, subprocess, sys, time
host, attempt = int(os.environ["GRPO_HOST_INDEX"]), int(os.environ["GRPO_ATTEMPT"])
def end(code, message=None):
    if message is not None:
        cause = {"class": "X", "code": code, "process": host, "step": None, "exception": None, "message": message}
        open(os.environ["GRPO_TERMINATION_LOG"], "w").write(json.dumps(cause))
    sys.exit(code)
def on_term(act):
    signal.signal(signal.SIGTERM, lambda *_: act())
"""


def _marked(program: str) -> tuple[str, str]:
    mark = uuid.uuid4().hex
    return mark, f"{PROGRAM}\nMARK = '{mark}'\n{program}"


def _left(mark: str) -> list[str]:
    """Command lines of what still runs and carries the mark."""
    ps = ["/bin/ps", "-A", "-ww", "-o", "pid=,stat=,command="]
    listing = subprocess.run(ps, capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if mark in line and "Z" not in line.split()[1]]


def _wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Ran:
    """A run that has ended: exit code, what it printed, its own words, and what it left running."""

    code: int
    out: str
    notes: str
    left: list[str]


Here = Callable[..., Ran]


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs a program as both processes of a job, to the end."""
    monkeypatch.setattr(attempt, "PEER_GRACE_SECONDS", 1.0)

    def run_here(program: str, restarts: int = 0, settle_seconds: float = 0.2) -> Ran:
        monkeypatch.setattr(attempt, "SETTLE_SECONDS", settle_seconds)
        mark, text = _marked(program)
        config_map, job_set = yaml.load_all(MANIFESTS.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        (container,) = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
        container["command"] = ["python", "-c", text]
        machine = Machine(dict(os.environ), tmp_path, io.StringIO(), io.StringIO(), colour=False)
        code = run_manifests(Manifests(config_map, job_set), machine=machine, restarts=restarts)
        return Ran(code, machine.out.getvalue(), machine.notes.getvalue(), _left(mark))  # type: ignore[attr-defined]

    return run_here


class Run:
    """A run in a process of its own, for what comes from outside; the mark finds all that it started."""

    def __init__(self, folder: Path, program: str) -> None:
        self.mark, text = _marked(program)
        self.stdout = folder / "stdout"
        with self.stdout.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUNNER, str(MANIFESTS), text], stdout=out, cwd=folder, start_new_session=True
            )

    def code(self) -> int:
        return self.process.wait(timeout=BOUND_SECONDS)

    def wait_for_both(self, text: str) -> None:
        _wait_until(lambda: self.stdout.read_text().count(text) == 2, f"{text!r} of both processes")

    def left(self) -> list[str]:
        return [line for line in _left(self.mark) if int(line.split()[0]) != self.process.pid]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Run]]:
    runs: list[Run] = []

    def start(program: str) -> Run:
        runs.append(Run(tmp_path, program))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


Start = Callable[[str], Run]


def test_lines_carry_their_process(run_here: Here) -> None:
    """Output of both streams is shown line by line behind the process's index; the run's own words go apart."""
    ran = run_here("print('out', host); print('err', host, file=sys.stderr)")
    assert ran.code == 0
    assert sorted(ran.out.splitlines()) == ["0 | err 0", "0 | out 0", "1 | err 1", "1 | out 1"]
    assert ran.notes.splitlines()[-1] == "grpoctl run: done"


def test_chatter_of_the_collectives_is_not_shown(run_here: Here) -> None:
    """What JAX's CPU collectives print at each new group of devices is dropped; every other line stays."""
    ran = run_here(
        "print('[Gloo] Rank 0 is connected to 1 peer ranks. Expected number is : 1'); print('[Gloo] failed')"
    )
    assert sorted(ran.out.splitlines()) == ["0 | [Gloo] failed", "1 | [Gloo] failed"]


def test_an_agreed_cause_is_told_once(run_here: Here) -> None:
    """Processes that end with the same words are one cause; the summary does not repeat it for each."""
    ran = run_here("end(5, 'model_path: /nowhere is not a folder')", settle_seconds=2.0)
    assert ran.code == 5
    assert ran.notes.count("/nowhere is not a folder") == 1


def test_kill_9_of_one_process_ends_the_run_with_its_cause(run_here: Here) -> None:
    """The other process is ended, the killed one is named with its signal, and nothing is left."""
    ran = run_here("os.kill(os.getpid(), signal.SIGKILL) if host == 1 else time.sleep(60)")
    cause = "process 1: ended by SIGKILL: kill -9 from outside"
    assert ran.code == 137
    assert f"failed with exit code 137; first cause: {cause}" in ran.notes
    assert ran.left == []


@pytest.mark.parametrize("waits", [(0.3, 0.0), (0.0, 0.3)])
def test_the_cause_is_found_in_both_orders(run_here: Here, waits: tuple[float, float]) -> None:
    """A process that lost its peer may end before or after the peer whose fatal end it suffers from: 5 is the cause."""
    ran = run_here(
        f"time.sleep({waits}[host])\n"
        "end(5, 'model_path: /nope is no folder; give one') if host == 0 else end(9, 'process 0 is gone')",
        settle_seconds=10.0,
    )
    assert ran.code == 5
    assert "first cause: process 0: InputNotReachable: model_path: /nope is no folder" in ran.notes
    assert "then process 1: PeerLost: process 0 is gone" in ran.notes


def test_a_survivor_that_will_not_end_is_killed(run_here: Here) -> None:
    """After a failure the others get SIGTERM and a bounded time; who ignores it is killed and is not the cause."""
    ran = run_here("on_term(lambda: None)\nend(1, 'a bug') if host == 0 else [time.sleep(0.1) for _ in range(600)]")
    assert ran.code == 1
    assert "first cause: process 0: Failed: a bug" in ran.notes
    assert ran.left == []


def test_without_a_written_cause_the_last_lines_are_shown(run_here: Here) -> None:
    """As FallbackToLogsOnError does: the end of the failed process's output."""
    ran = run_here("print('before')\nif host == 1: raise RuntimeError('no such thing')")
    assert ran.code == 1
    assert "process 1: exit code 1, FAILED\ngrpoctl run: its last lines:\n    before\n" in ran.notes
    assert "\n    RuntimeError: no such thing\n" in ran.notes


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_forwarded_and_waited_for(start: Start, signum: int) -> None:
    """Ctrl-C and SIGTERM reach every process as SIGTERM, once; the run ends as they do, here preempted after saving."""
    run = start("on_term(lambda: (time.sleep(0.3), print('saved', flush=True), end(10)))\nprint('up'); time.sleep(60)")
    run.wait_for_both("up")
    run.process.send_signal(signum)
    assert run.code() == 10
    assert run.stdout.read_text().count("saved") == 2
    assert run.left() == []


def test_a_second_ctrl_c_kills(start: Start) -> None:
    """Who does not end on the first is killed at once on the second, and the exit code says Ctrl-C."""
    run = start("on_term(lambda: print('never', flush=True))\nprint('up', flush=True)\nwhile True: time.sleep(0.1)")
    run.wait_for_both("up")
    run.process.send_signal(signal.SIGINT)
    run.wait_for_both("never")
    run.process.send_signal(signal.SIGINT)
    assert run.code() == 130
    assert run.left() == []


def test_kill_9_of_the_run_leaves_no_process(start: Start) -> None:
    """Nobody is left to end them: each process's parent notices, and ends what it started, in other sessions too.
    The folder with the job's ConfigMaps and Secrets goes with them.
    """
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', MARK], start_new_session=True)"
    run = start(f"{child}; print('up', os.environ['GRPO_RUN_CONFIG'], flush=True); time.sleep(60)")
    run.wait_for_both("up")
    sandbox = Path(run.stdout.read_text().split("up ")[1].split("/attempt-0/")[0])
    assert sandbox.is_dir()
    assert len(run.left()) == 6  # per process: its parent, itself, its child
    run.process.kill()
    run.process.wait()
    _wait_until(lambda: run.left() == [], "an empty process list")
    assert not sandbox.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child in a session of its own escapes its parent")
def test_what_a_process_leaves_behind_is_killed(run_here: Here) -> None:
    """A background child of the program, which holds its output open, neither survives nor delays the end."""
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', MARK], start_new_session=True)"
    began = time.monotonic()
    ran = run_here(f"{child}; sys.exit(0)")
    assert ran.code == 0
    assert time.monotonic() - began < BOUND_SECONDS
    assert ran.left == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed parent's child ends with its process group")
def test_a_killed_parent_takes_its_process_along(run_here: Here) -> None:
    """Kill -9 of the small parent between run and program is a kill of the program."""
    ran = run_here("os.kill(os.getppid(), signal.SIGKILL) if host == 1 else None; time.sleep(60)")
    assert ran.code == 137
    assert ran.left == []


def test_a_closed_output_ends_the_run(tmp_path: Path) -> None:
    """Where the reader of its output is gone, the run stops instead of running on unseen."""
    _, text = _marked("while True: print('x', flush=True); time.sleep(0.05)")
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(MANIFESTS), text],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=BOUND_SECONDS) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_a_failed_attempt_is_restarted_as_often_as_asked(run_here: Here) -> None:
    """Each attempt is told its number, as JobSet's annotation would; the run's end is the last attempt's."""
    ran = run_here("print('attempt', attempt); end(1, 'not yet') if attempt < 2 else end(0)", restarts=2)
    assert ran.code == 0
    assert ran.out.count("attempt 2") == 2
    assert "restart 2 of 2" in ran.notes


@pytest.mark.parametrize(("code", "restarts"), [(1, 0), (2, 3)])
def test_no_restart_unless_asked_and_never_of_a_fatal_end(run_here: Here, code: int, restarts: int) -> None:
    """Without --restarts the first failure ends the run; a fatal class ends it in any case."""
    ran = run_here(f"print('attempt', attempt); end({code}, 'no')", restarts=restarts)
    assert ran.code == code
    assert "attempt 1" not in ran.out
