"""Functions written for TRL run unchanged: its documented signatures, plain text and conversations, side by side."""

import os
from pathlib import Path

import numpy as np
import pytest

from trainer.contract.run import Reward
from trainer.rewards import RewardSet, Rows, Scores


@pytest.fixture(autouse=True)
def functions_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def scored(rows: Rows, *functions: str, timeout: float = 60.0, args: tuple[dict, ...] = ()) -> Scores:
    settings = args or ({},) * len(functions)
    rewards = RewardSet(
        [
            Reward(name=f"{name}-{i}", python=f"trl_rewards:{name}", weight=1.0, args=given, timeout_seconds=timeout)
            for i, (name, given) in enumerate(zip(functions, settings, strict=True))
        ],
        "answer",
        200,
    )
    try:
        rewards.start()
        return rewards.score(rows)
    finally:
        rewards.stop()


def test_functions_of_the_standard_format() -> None:
    """Text in, text out: ids under both names, columns as keywords, None for another task, coroutines, the state."""
    rows = Rows(
        prompts=["2+2 is 4?", "Write a sum."],
        completions=["4", r"so \boxed{5}"],
        completion_ids=[[7], [1, 2, 3]],
        columns={"ground_truth": ["4", "5"], "task": ["math", "code"], "prompt": ["hidden", "hidden"]},
        completed=50,
    )
    names = (
        "by_tokens",
        "by_characters",
        "boxed_truth",
        "mathematics_only",
        "code_only",
        "remote",
        "curriculum",
        "logs",
        "logs_by_keyword",
    )

    scores = scored(rows, *names)

    expected = [[1, 3], [1, 12], [0, 1], [1, np.nan], [np.nan, 0.5], [1, 1], [0.25, 0.25], [1, 1], [1, 1]]
    assert scores.errors == {}
    assert np.array_equal(scores.values, expected, equal_nan=True)
    assert np.allclose(scores.totals, [6.25, 19.75])


def test_functions_of_the_conversational_format() -> None:
    """Where the data holds conversations, a completion is one message of the assistant, and prompts are messages."""
    system = {"role": "system", "content": "Think."}
    rows = Rows(
        prompts=[[system, {"role": "user", "content": question}] for question in ("1?", "2?")],
        completions=["<think>a</think><answer>1</answer>", "2"],
        completion_ids=[[1], [2]],
        columns={"solution": ["1", "2"]},
    )

    scores = scored(rows, "two_blocks", "accuracy", "roles")

    assert scores.errors == {}
    assert scores.values.tolist() == [[1, 0], [0, 1], [1, 1]]


def test_rows_of_both_formats_are_all_conversations() -> None:
    """A function gets one kind: beside a conversation, a text becomes a conversation of one user's turn."""
    rows = Rows(["plain", [{"role": "user", "content": "c"}]], ["a", "b"], [[1], [1]], {"solution": ["a", "a"]})
    assert scored(rows, "accuracy").values.tolist() == [[1, 0]]


def test_functions_run_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two functions that each wait for the other both end: neither holds up the other."""
    monkeypatch.setenv("PARENT", str(os.getpid()))
    rows = Rows(["p"], ["c"], [[1]], {"meeting": [str(tmp_path)]})
    pair = ({"me": "a", "other": "b"}, {"me": "b", "other": "a"})
    assert scored(rows, "meets_the_other", "meets_the_other", args=pair).values.tolist() == [[1], [1]]


def test_a_hanging_function_costs_only_its_own_numbers(tmp_path: Path) -> None:
    """One function waits in vain and is killed at its deadline; its rows are unscorable, the other's values stand."""
    rows = Rows(["p", "p"], ["c", "dd"], [[1], [1]], {"meeting": [str(tmp_path)] * 2})
    scores = scored(rows, "meets_the_other", "by_characters", timeout=2.0, args=({"me": "a", "other": "never"}, {}))
    assert scores.failed.tolist() == [[True, True], [False, False]]
    assert scores.values[1].tolist() == [1, 2]
    assert np.isnan(scores.totals).all()
    assert scores.errors == {"meets_the_other-0": "no answer within 2 s"}
