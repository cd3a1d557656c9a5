"""The built-in rewards, judged on texts written by hand."""

import numpy as np
import pytest

from trainer.contract.run import Reward
from trainer.rewards import RewardSet, Rows
from trainer.rewards.answers import gold_text
from trainer.rewards.builtin import format_reward, tags_reward

RIGHT = [
    ("1,200", "So the total is 1,200."),
    ("1,200", "1200"),
    ("1200", "<answer>1,200</answer>"),
    ("-5", "The result is -5"),
    ("-5", "10 - 15 = -5"),
    ("-5", "<answer>\N{MINUS SIGN}5</answer>"),
    ("5", "10-5"),
    ("18", "$18.00"),
    ("18", "She makes $18.00 a day."),
    ("-18", "a loss of -$18"),
    ("7", r"Hence \boxed{7}."),
    ("7", r"\boxed{7 \text{ apples}}"),
    ("1/2", "0.5"),
    ("0.5", "<answer>1/2</answer>"),
    ("3/4", r"\boxed{\frac{3}{4}}"),
    ("1.5", "<answer>1 1/2</answer>"),
    ("10", "<answer>10</answer> in 2 steps"),
    ("18", "<think>9 * 2 = 20?</think><answer>x = 18 (apples)</answer>"),
    ("50", "50%"),
    ("1000000", r"$1{,}000{,}000$"),
    ("3", "We get 5.\n#### 3"),
    ("Paris", "<answer> paris. </answer>"),
    (18, "18"),
    (0.5, "1/2"),
]
WRONG = [
    ("1,200", "1,201"),
    ("-5", "5"),
    ("5", "-5"),
    ("18", "$18.50"),
    ("10", "<answer>12</answer> and 10"),
    ("7", r"\boxed{8} or 7"),
    ("1", "1" * 5000),
    ("2", "no number here"),
    ("2", "<answer></answer>"),
    ("5", "5/0"),
    ("200", "1,200"),
]


def correctness(pairs: list[tuple[object, str]]) -> list[float]:
    rewards = RewardSet([Reward(name="correct", python=None, weight=1.0, args={}, timeout_seconds=30.0)], "answer")
    columns = {"answer": [gold for gold, _ in pairs]}
    completions = [completion for _, completion in pairs]
    try:
        return rewards.score(Rows([""] * len(pairs), completions, [[]] * len(pairs), columns)).values[0].tolist()
    finally:
        rewards.stop()


@pytest.mark.parametrize(("gold", "completion"), RIGHT)
def test_a_right_number_is_right_however_it_is_written(gold: object, completion: str) -> None:
    """Separators, signs, currency, boxes, tags and fractions do not change a number."""
    assert correctness([(gold, completion)]) == [1.0]


@pytest.mark.parametrize(("gold", "completion"), WRONG)
def test_a_wrong_number_is_wrong(gold: object, completion: str) -> None:
    """Another number, another sign, no number at all, and a number outside the marked answer score 0."""
    assert correctness([(gold, completion)]) == [0.0]


def test_expressions_are_judged_by_math_verify() -> None:
    """What is no plain number is compared as mathematics; what sympy cannot finish is unscorable and no zero."""
    pairs = [
        ("x+1", r"\boxed{1+x}"),
        ("4", r"\boxed{\sqrt{16}}"),
        ("1/3", "<answer>0.333333</answer>"),
        ("8", "<answer>10+8</answer>"),
        (r"9^{9^{9^{9}}}", r"\boxed{3^{3^{3^{3}}}}"),
    ]
    assert np.array_equal(correctness(pairs), [1.0, 1.0, 1.0, 0.0, np.nan], equal_nan=True)


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
