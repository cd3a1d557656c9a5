"""Rewards that users write: TRL's signature, processes of their own, and what becomes of faults."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from trainer.contract.run import Reward
from trainer.rewards import RewardSet, Rows
from trainer.rewards.loading import LoadError
from trainer.rewards.scoring import total_rewards


@pytest.fixture(autouse=True)
def samples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def user(function: str, weight: float = 1.0, timeout: float = 20.0, **args: object) -> Reward:
    return Reward(name=function, python=f"reward_samples:{function}", weight=weight, args=args, timeout_seconds=timeout)


def rows(*completions: str, **columns: list[object]) -> Rows:
    ids = [[1] * (index + 1) for index in range(len(completions))]
    return Rows(["p"] * len(completions), list(completions), ids, columns)


@contextmanager
def started(*rewards: Reward) -> Iterator[RewardSet]:
    rewards_of_run = RewardSet(rewards, "answer", 100)
    try:
        rewards_of_run.start()
        yield rewards_of_run
    finally:
        rewards_of_run.stop()


def test_a_function_of_trl_runs_unchanged() -> None:
    """Prompts, completions, ids and data columns arrive as keywords, `args` too; None leaves the row out of the sum."""
    with started(user("trl_style", scale=2.0), user("brevity", weight=10.0)) as rewards:
        scores = rewards.score(rows("aa", "b", level=["easy", "skip"], prompt=["hidden", "hidden"]))
    assert np.array_equal(scores.values, [[2.0, np.nan], [-0.2, -0.1]], equal_nan=True)
    assert np.allclose(scores.totals, [2.0 - 2.0, -1.0])
    assert not scores.failed.any()


def test_a_function_gets_only_the_columns_that_it_names() -> None:
    """Without **kwargs, a function is called with the arguments in its signature and no others."""
    with started(user("two_columns")) as rewards:
        scores = rewards.score(rows("a", "b", answer=["a", "c"], other=[1, 2]))
    assert scores.values.tolist() == [[1.0, 0.0]]


def test_a_call_is_cut_short_when_its_answer_is_not_needed() -> None:
    """A thread that waits for a slow function is let go at once, and no later call waits either."""
    with started(user("hangs_on_hang", timeout=600)) as rewards:
        threading.Timer(1.0, rewards.abandon).start()
        scores = [rewards.score(rows("hang")), rewards.score(rows("hang"))]
    assert [score.failed.tolist() for score in scores] == [[[True]]] * 2
    assert scores[1].errors == {"hangs_on_hang": "rewards[0].python: the run is stopping"}


def test_an_async_function_is_awaited() -> None:
    """A coroutine function scores like any other, all its calls in one loop."""
    with started(user("slow_judge"), user("keeps_a_connection")) as rewards:
        for _ in range(2):
            assert rewards.score(rows("a", "bbb")).values.tolist() == [[1.0, 3.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("raises", "KeyError: 'solution'"),
        ("nothing", "TypeError: a NoneType came back; return a list with one number or None per completion"),
        ("too_few", "ValueError: 1 rewards for 2 completions"),
        ("dies", "its process ended with exit code 3"),
    ],
)
def test_a_fault_makes_rows_unscorable_and_is_told(function: str, reason: str) -> None:
    """A function that raises, answers wrongly or kills its process gives no number, and the rest goes on."""
    with started(user(function), user("brevity")) as rewards:
        for _ in range(2):
            scores = rewards.score(rows("a", "b"))
            assert scores.failed.tolist() == [[True, True], [False, False]]
            assert np.isnan(scores.totals).all()
            assert scores.errors == {function: reason}


def test_a_timeout_is_counted_and_the_next_call_starts_afresh() -> None:
    """A call that overruns is killed: its rows are unscorable, and the next call is answered."""
    with started(user("hangs_on_hang", timeout=2.0)) as rewards:
        late = rewards.score(rows("hang", "b"))
        assert late.failed.all()
        assert late.errors == {"hangs_on_hang": "no answer within 2 s"}
        assert rewards.score(rows("a", "b")).values.tolist() == [[1.0, 1.0]]


def test_a_function_may_start_processes_and_they_end_with_it(tmp_path: Path) -> None:
    """One that tries code in a process of its own scores; where that hangs, it is killed with the call."""
    note = tmp_path / "pid"
    with started(user("tries_code", timeout=3.0)) as rewards:
        assert rewards.score(rows("a", notes=[str(note)])).values.tolist() == [[1.0]]
        assert rewards.score(rows("hang", notes=[str(note)])).failed.all()
    status = Path(f"/proc/{note.read_text()}/status")
    deadline = time.monotonic() + 20.0
    while status.exists() and "(zombie)" not in status.read_text():  # somebody else's to bury
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_reward_that_is_not_finite_is_a_fault_of_that_row_alone() -> None:
    """Infinity and NaN are unscorable, counted and told; None is a choice, and other rows keep their numbers."""
    with started(user("not_finite")) as rewards:
        scores = rewards.score(rows("", "?", "-", "b"))
    assert scores.failed.tolist() == [[True, True, False, False]]
    assert np.array_equal(scores.totals, [np.nan, np.nan, np.nan, 1.0], equal_nan=True)
    assert scores.errors == {"not_finite": "a reward that is not finite; return None where there is none"}


def test_user_code_sees_no_accelerator() -> None:
    """A reward that imports JAX gets the CPU, because the trainer holds the TPU."""
    with started(user("platform")) as rewards:
        assert rewards.score(rows("a")).values.tolist() == [[1.0]]


def test_totals_are_weighted_sums_over_what_was_given() -> None:
    """Two rewards, weights 1 and 0.5, worked by hand: both given, one left out, both left out, one failed.

    With weight 0 the second is only watched: neither its numbers nor its failure count.
    """
    nan = np.nan
    values = np.array([[1.0, nan, nan, 1.0], [2.0, 3.0, nan, nan]])
    failed = np.array([[False] * 4, [False, False, False, True]])
    totals = total_rewards(values, failed, np.array([1.0, 0.5]))
    assert np.array_equal(totals, [2.0, 1.5, nan, nan], equal_nan=True)
    watched = total_rewards(values, failed, np.array([1.0, 0.0]))
    assert np.array_equal(watched, [1.0, nan, nan, 1.0], equal_nan=True)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("brevity", "rewards[0].python: 'brevity' must be module:function; use for example my_rewards:brevity"),
        (
            "reward_samples:brevty",
            "rewards[0].python: 'reward_samples:brevty': module 'reward_samples' has no 'brevty'; "
            "use reward_samples:brevity",
        ),
        (
            "reward_samples:NOT_A_FUNCTION",
            "rewards[0].python: 'reward_samples:NOT_A_FUNCTION' is a int, and must be a function; name a function",
        ),
        (
            "reward_that_raises:score",
            "rewards[0].python: 'reward_that_raises:score': its import raised ValueError: no key in FILE line 1; "
            "correct the module",
        ),
        (
            "reward_that_imports:score",
            "rewards[0].python: 'reward_that_imports:score': its import raised ModuleNotFoundError: "
            "No module named 'nowhere_to_be_found' in FILE line 1; correct the module",
        ),
    ],
)
def test_what_cannot_be_imported_is_told_in_one_sentence(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The field, the value, what is wrong with it, and what to do: for each way in which an import can fail."""
    (tmp_path / "reward_that_raises.py").write_text("raise ValueError('no key')\n")
    (tmp_path / "reward_that_imports.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    reward = Reward(name="mine", python=spec, weight=1.0, args={}, timeout_seconds=5.0)
    with pytest.raises(LoadError) as refused, started(reward):
        pass
    file = tmp_path / f"{spec.partition(':')[0]}.py"
    assert str(refused.value) == message.replace("FILE", str(file))


def test_a_missing_module_names_the_places_searched() -> None:
    """The folders of PYTHONPATH that were searched stand in the message."""
    reward = Reward(name="mine", python="no_such_rewards:score", weight=1.0, args={}, timeout_seconds=5.0)
    sentence = r"there is no module 'no_such_rewards' in .*put its folder on PYTHONPATH"
    with pytest.raises(LoadError, match=sentence) as refused, started(reward):
        pass
    assert str(Path(__file__).parent) in str(refused.value)
    assert "no_such_rewards" not in sys.modules
