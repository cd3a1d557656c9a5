"""The built-in rewards, judged on texts written by hand."""

import numpy as np
import pytest
from answer_pairs import PAIRS

from trainer.contract.run import Reward
from trainer.rewards import RewardSet, Rows
from trainer.rewards.answers import gold_text
from trainer.rewards.builtin import format_reward, tags_reward
from trainer.rewards.isolated import Target
from trainer.rewards.pool import Outcome, Pool

FLAT = [(kind, *pair) for kind, pairs in PAIRS.items() for pair in pairs]


def correctness(pairs: list[tuple[object, str]]) -> list[float]:
    rewards = RewardSet([Reward(name="correct", python=None, weight=1.0, args={}, timeout_seconds=30.0)], "answer", 100)
    columns = {"answer": [gold for gold, _ in pairs]}
    completions = [completion for _, completion in pairs]
    try:
        return rewards.score(Rows([""] * len(pairs), completions, [[]] * len(pairs), columns)).values[0].tolist()
    finally:
        rewards.stop()


@pytest.fixture(scope="module")
def judged() -> list[float]:
    """All pairs in one call, as a step would score them."""
    return correctness([(gold, completion) for _, gold, completion, _ in FLAT])


@pytest.mark.parametrize("number", range(len(FLAT)), ids=lambda n: f"{FLAT[n][0]}: {str(FLAT[n][2])[-24:]!r}")
def test_an_answer_is_judged_by_what_it_says(number: int, judged: list[float]) -> None:
    """Separators, signs, currency, units, fractions, percent, boxes, tags and words around do not change an answer."""
    _, gold, completion, right = FLAT[number]
    assert judged[number] == float(right), (gold, completion)


def test_the_table_is_as_large_as_promised() -> None:
    """At least 150 different pairs, a quarter of each verdict at least."""
    verdicts = [right for *_, right in FLAT]
    assert len({(str(gold), completion) for _, gold, completion, _ in FLAT}) >= 150
    assert min(verdicts.count(True), verdicts.count(False)) >= len(FLAT) // 4


def test_what_sympy_cannot_finish_is_unscorable() -> None:
    """A tower of powers is no zero: it is unscorable, and the expression beside it is judged."""
    pairs = [(r"9^{9^{9^{9}}}", r"\boxed{3^{3^{3^{3}}}}"), ("x+1", r"\boxed{1+x}")]
    assert np.array_equal(correctness(pairs), [np.nan, 1.0], equal_nan=True)


def test_a_hang_is_killed_and_holds_up_no_other_call() -> None:
    """Of four calls on two processes one hangs where no signal reaches it: it alone has no number, and a reason."""
    pool = Pool(Target("rewards.correct", "reward_samples:hangs_on_hang", {}, 60.0), workers=2)
    try:
        outcomes = pool.call_each([{"completions": [text]} for text in ("a", "hang", "b", "c")], longest=3.0)
        again = pool.call_each([{"completions": ["d"]}, {"completions": ["e"]}], longest=30.0)
    finally:
        pool.stop()
    assert outcomes == [Outcome(1.0), Outcome(None, "no answer within 3 s"), Outcome(1.0), Outcome(1.0)]
    assert again == [Outcome(1.0), Outcome(1.0)]


def test_all_calls_together_have_a_deadline() -> None:
    """However many calls hang, the pool answers when the target's time is spent; what was not begun says so."""
    pool = Pool(Target("rewards.correct", "reward_samples:hangs_on_hang", {}, 3.0), workers=1)
    try:
        outcomes = pool.call_each([{"completions": ["hang"]}] * 3, longest=2.0)
    finally:
        pool.stop()
    assert [outcome.value for outcome in outcomes] == [None] * 3
    assert outcomes[2].error == "no time left of 3 s for all"


def test_gold_of_gsm8k_follows_the_hashes() -> None:
    """The gold answer is the text after ####, with the reasoning before it left out; a missing one is None."""
    assert gold_text("She sold 48/2 = <<48/2=24>>24 clips.\n#### 72") == "72"
    assert gold_text(" 1,200 ") == "1,200"
    assert gold_text(None) is None


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>a</think>\n<answer>b</answer>", 1.0),
        ("<think>a</think>\n\n<answer>b</answer>\n", 1.0),
        ("<think>a\nb</think><answer>c\nd</answer>", 1.0),
        ("<think>a</think>\n<answer>b</answer>\nmore", 0.0),
        ("so <think>a</think>\n<answer>b</answer>", 0.0),
        ("<think>a</think> then <answer>b</answer>", 0.0),
        ("<answer>b</answer>\n<think>a</think>", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think>a</think>", 0.0),
    ],
)
def test_format_wants_the_two_blocks_and_nothing_else(completion: str, expected: float) -> None:
    """One think block, then one answer block, only white space around and between them."""
    assert format_reward(completion) == expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [("", 0.0), ("<think>", 0.25), ("<think><think></think>", 0.25), ("<think></think><answer></answer>", 1.0)],
)
def test_tags_count_a_quarter_each(completion: str, expected: float) -> None:
    """Each tag that occurs exactly once gives 0.25; a repeated one gives nothing."""
    assert tags_reward(completion) == expected
