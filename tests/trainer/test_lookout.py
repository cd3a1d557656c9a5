"""The lookout: a request to stop reaches every process, and ends them at once where nothing would be lost."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from trainer.contract.exits import ExitCode
from trainer.lookout import Lookout, OwnBoard

AWAY = """
import hashlib, os
from trainer.lookout import Lookout
Lookout(lambda code, text: os._exit(int(code))).listen()
print("up", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # one call of many minutes, which lets other threads run
"""


class Process:
    """A lookout that notes what it did instead of ending; its looks are the test's."""

    def __init__(self, index: int, board: OwnBoard) -> None:
        self.ended: list[ExitCode] = []
        self.cuts = 0
        self.may_be_left = False
        self.lookout = Lookout(lambda code, _: self.ended.append(code))
        self.lookout.join(board, index, 2)
        self.lookout.guard(lambda: self.may_be_left, self._cut)

    def _cut(self) -> None:
        self.cuts += 1


@pytest.fixture
def pair() -> tuple[Process, Process]:
    board = OwnBoard()
    return Process(0, board), Process(1, board)


def test_one_request_reaches_all(pair: tuple[Process, Process]) -> None:
    """A process that got no signal knows after a look; each cuts short, once, what takes long."""
    asked, other = pair
    other.lookout.look()
    assert not other.lookout.asked
    asked.lookout.asked = True
    for process in (asked, other, asked, other):
        process.lookout.look()
    assert other.lookout.asked
    assert (asked.cuts, other.cuts) == (1, 1)
    assert asked.ended == other.ended == []  # both have steps to keep


def test_all_are_left_at_once_where_none_has_anything_to_lose(pair: tuple[Process, Process]) -> None:
    """A process with a step to keep holds all; when it has none any more, they end by the same word."""
    first, second = pair
    first.lookout.asked = first.may_be_left = True
    for process in (first, second, first):
        process.lookout.look()
    assert first.ended == second.ended == []
    second.may_be_left = True
    second.lookout.look()
    first.lookout.look()
    assert first.ended == second.ended == [ExitCode.PREEMPTED]


def test_a_main_thread_that_decides_is_not_overtaken(pair: tuple[Process, Process]) -> None:
    """Once sealed a process gives no word any more; the seal tells whether it had given it."""
    first, second = pair
    first.may_be_left = second.may_be_left = second.lookout.asked = True
    assert first.lookout.seal() is False
    for process in (second, first, second):
        process.lookout.look()
    assert second.lookout.seal() is True
    assert first.ended == second.ended == []


@pytest.mark.parametrize("warns", [0, 1])
def test_who_warns_waits_for_the_others_and_the_coordinator_leaves_last(
    pair: tuple[Process, Process], warns: int
) -> None:
    """Whichever of two processes fails, none leaves before both have written down why, and process 0 is the second."""
    left: list[int] = []

    def leave(index: int, take_leave: Callable[[], None]) -> None:
        take_leave()
        left.append(index)

    failing, other = pair[warns].lookout, pair[1 - warns].lookout
    first = threading.Thread(target=leave, args=(warns, lambda: failing.warn(ExitCode.FAILED, "no space")))
    first.start()
    first.join(1)
    assert left == []
    other.look()
    assert pair[1 - warns].ended == [ExitCode.PEER_LOST]
    leave(1 - warns, other.follow)
    first.join()
    assert left == [1, 0]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_signal_is_heard_while_the_main_thread_is_away() -> None:
    """SIGTERM ends a lone process that has nothing to lose in the middle of a call that does not come back."""
    process = subprocess.Popen([sys.executable, "-c", AWAY], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == ExitCode.PREEMPTED
    process.stdout.close()
