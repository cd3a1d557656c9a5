"""How each process of an attempt ended in, one cause and one exit code out. Pure.

The precedence is the controller's (docs/adr/0004-exit-codes.md): a fatal class before a failure of the run's own before
a preemption before a lost peer. It goes by class and not by time: a victim may end before its cause is written.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.contract.exits import FATAL, Cause, ExitCode

KILLED = 128 + 9
ABORTED = 128 + 6
"""JAX ends the survivors of a lost process so; the trainer's supervisor makes it 9."""

OWN_FAILURES = (ExitCode.FAILED, ExitCode.OUT_OF_MEMORY, ExitCode.STALLED, KILLED)


@dataclass(frozen=True, slots=True)
class Ending:
    """One process's end. `asked`: we had asked it to stop. `message`: its termination log, else its last lines."""

    process: int
    place: str
    code: int
    asked: bool
    message: str

    @property
    def failed(self) -> bool:
        return self.code != 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`cause` is None where no process can be blamed. `stopped`: the user ended the run, and no process failed before.
    `may_heal` says that another attempt could do better.
    """

    code: int
    cause: Ending | None
    stopped: bool = False

    @property
    def may_heal(self) -> bool:
        return self.code not in (ExitCode.DONE, *FATAL)


def judge(endings: Sequence[Ending], interrupted: int | None) -> Verdict:
    """`endings` in order of time; `interrupted` is the signal with which the user stopped the run, if so."""
    failed = [ending for ending in endings if ending.failed]
    if not failed:
        return Verdict(0, None)
    cause = min(failed, key=_precedence)  # of one class, the first
    if interrupted is not None and cause.asked and cause.code not in (*FATAL, *OWN_FAILURES[:3], ExitCode.PREEMPTED):
        return Verdict(128 + interrupted, None, stopped=True)
    return Verdict(cause.code, cause, stopped=interrupted is not None and cause.code == ExitCode.PREEMPTED)


def _precedence(ending: Ending) -> int:
    if ending.code in FATAL:
        return 0
    if ending.code in OWN_FAILURES and not (ending.asked and ending.code == KILLED):
        return 1
    if ending.code == ExitCode.PREEMPTED and not ending.asked:
        return 2
    return 4 if ending.asked else 3


def explain(ending: Ending) -> str:
    """One sentence: the cause that the process wrote down, or what its exit code says."""
    written = _written_cause(ending.message)
    if written is not None:
        step = "" if written.step is None else f" after step {written.step}"
        return f"{written.name}{step}: {written.message}"
    if ending.code > 128:
        return f"ended by {_signal_name(ending.code - 128)}{_about_signal(ending.code)}"
    known = {int(code): code for code in ExitCode}
    return f"exit code {ending.code}" + (f", {known[ending.code].name}" if ending.code in known else "")


def _written_cause(message: str) -> Cause | None:
    try:
        return Cause.from_json(message)
    except (ValueError, KeyError, TypeError):
        return None


def has_cause(ending: Ending) -> bool:
    return _written_cause(ending.message) is not None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _about_signal(code: int) -> str:
    if code == KILLED:
        return ": kill -9 from outside, or the kernel's out-of-memory killer"
    return ": how JAX ends a process whose peer is lost" if code == ABORTED else ""
