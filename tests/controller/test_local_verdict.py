"""Exits of several processes to one cause and one exit code, by class before time."""

import itertools

import pytest

from controller.local.verdict import Ending, explain, has_cause, judge
from trainer.contract.exits import Cause, ExitCode


def _ending(code: int, *, process: int = 0, asked: bool = False, message: str = "") -> Ending:
    return Ending(process, f"process {process}", code, asked, message)


def test_all_done_is_done() -> None:
    """Where every process exits 0, so does the job, and there is no cause."""
    verdict = judge([_ending(0), _ending(0, process=1)], interrupted=None)
    assert (verdict.code, verdict.cause, verdict.may_heal) == (0, None, False)


CLASSES = [[2, 3, 4, 5, 7], [1, 6, 8, 137], [10], [9, 134, 42]]
PAIRS = [(c, v) for higher, lower in itertools.combinations(CLASSES, 2) for c in higher for v in lower]


@pytest.mark.parametrize(("cause", "victim"), PAIRS)
def test_precedence_goes_by_class_in_both_orders(cause: int, victim: int) -> None:
    """2-5 and 7 come before 1, 6, 8 and 137, those before 10, and 10 before 9 and the rest, whoever ended first."""
    first, second = _ending(cause, process=0), _ending(victim, process=1)
    for order in ([first, second], [second, first]):
        verdict = judge(order, interrupted=None)
        assert (verdict.code, verdict.cause) == (cause, first)


def test_within_a_class_the_first_is_the_cause() -> None:
    """Of two failures of one class, the earlier one is shown."""
    verdict = judge([_ending(6, process=1), _ending(1, process=0)], interrupted=None)
    assert (verdict.code, verdict.cause and verdict.cause.process) == (6, 1)


@pytest.mark.parametrize("answer", [10, 143, 137])
def test_what_we_asked_for_is_no_cause(answer: int) -> None:
    """A process that ends because we ended it after a peer's failure does not hide that failure, even a lost peer's."""
    verdict = judge([_ending(9), _ending(answer, process=1, asked=True)], interrupted=None)
    assert (verdict.code, verdict.cause and verdict.cause.process) == (9, 0)


def test_a_cause_written_after_the_victim_still_wins() -> None:
    """A process that was asked to stop but ends with a fatal code of its own is the cause."""
    verdict = judge([_ending(9), _ending(5, process=1, asked=True)], interrupted=None)
    assert verdict.code == 5


def test_a_stopped_run_tells_how_it_stopped() -> None:
    """After Ctrl-C: 10 where the trainer saved and said so, 128 + signal where processes just ended, and a failure of
    its own where there was one.
    """
    assert judge([_ending(10, asked=True), _ending(10, process=1, asked=True)], interrupted=2).code == 10
    assert judge([_ending(143, asked=True), _ending(137, process=1, asked=True)], interrupted=2).code == 130
    assert judge([_ending(143, asked=True)], interrupted=15).code == 143
    assert judge([_ending(1, asked=True), _ending(10, process=1, asked=True)], interrupted=2).code == 1
    assert judge([_ending(0, asked=True)], interrupted=2).code == 0


@pytest.mark.parametrize("code", [2, 3, 4, 5, 7])
def test_fatal_endings_are_not_restarted(code: int) -> None:
    """Another attempt cannot heal what the JobSet would not restart either."""
    assert not judge([_ending(code)], interrupted=None).may_heal


@pytest.mark.parametrize("code", [1, 6, 8, 9, 10, 137, 42])
def test_other_endings_may_heal(code: int) -> None:
    """Everything else may be better next time."""
    assert judge([_ending(code)], interrupted=None).may_heal


def test_a_written_cause_is_told_in_its_words() -> None:
    """The JSON of the termination log gives class, step and message; other text is no cause."""
    written = Cause(ExitCode.INPUT_NOT_REACHABLE, 1, None, "RunError", "model_path: /nope is no folder").to_json()
    ending = _ending(5, message=written)
    assert explain(ending) == "InputNotReachable: model_path: /nope is no folder"
    assert has_cause(ending)
    assert not has_cause(_ending(5, message="Traceback"))
    later = Cause(ExitCode.NON_FINITE, 0, 12, None, "the loss is nan").to_json()
    assert explain(_ending(7, message=later)) == "NonFinite after step 12: the loss is nan"


def test_an_exit_without_words_is_explained_by_its_code() -> None:
    """A signal is named with its usual reason, a code with its class."""
    assert explain(_ending(137)) == "ended by SIGKILL: kill -9 from outside, or the kernel's out-of-memory killer"
    assert explain(_ending(139)) == "ended by SIGSEGV"
    assert explain(_ending(8)) == "exit code 8, STALLED"
    assert explain(_ending(42)) == "exit code 42"


def test_a_stop_by_the_user_is_told_from_a_failure() -> None:
    """Where the user ended a run that was well, it is stopped and not failed; where it had failed before, it failed."""
    assert judge([_ending(10, asked=True)], interrupted=2).stopped
    assert judge([_ending(143, asked=True)], interrupted=2).stopped
    assert not judge([_ending(6), _ending(10, process=1, asked=True)], interrupted=2).stopped
    assert not judge([_ending(10)], interrupted=None).stopped
