"""pass@k and maj@k, against every choice of k samples and numbers worked by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.solving import NO_VOTE, counts_of, majority_at, pass_at, solved_row


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_choices_that_hold_a_pass(passed: list[bool], data: st.DataObject) -> None:
    """Over all ways to take k of the samples, the share with one that passed: what the estimator stands for."""
    k = data.draw(st.integers(1, len(passed)))
    choices = [any(choice) for choice in combinations(passed, k)]
    assert pass_at(k, len(passed), sum(passed)) == pytest.approx(np.mean(choices), abs=1e-12)


def test_pass_at_1_is_the_mean_and_pass_at_n_asks_for_one() -> None:
    """Three of eight pass: 3/8 for one draw, 1 - 10/28 for two, certain for all eight; none passes: never."""
    assert [pass_at(k, 8, 3) for k in (1, 2, 8)] == [3 / 8, 1 - 10 / 28, 1.0]
    assert pass_at(8, 8, 0) == 0.0


@pytest.mark.parametrize(("samples", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_the_counts_are_powers_of_two_and_all(samples: int, counts: list[int]) -> None:
    """Told are k = 1, 2, 4 … below the number of samples, and that number."""
    assert counts_of(samples) == counts


@pytest.mark.parametrize(
    ("votes", "passed", "expected"),
    [
        ([0, 0, 1], [True, True, False], 1.0),
        ([0, 1, 1], [True, False, False], 0.0),
        ([0, 1], [True, False], 0.5),
        ([0, 1, 2, 1, 0], [False, True, False, True, False], 0.5),
        ([NO_VOTE, NO_VOTE, 0], [False, False, True], 1.0),
        ([NO_VOTE, NO_VOTE], [False, False], 0.0),
    ],
)
def test_the_answer_given_most_often_decides(votes: list[int], passed: list[bool], expected: float) -> None:
    """Ties share the vote, samples without an answer have none, and where nobody answers nothing passes."""
    assert majority_at(len(votes), votes, passed) == expected


def test_majorities_of_fewer_samples_use_all_blocks() -> None:
    """maj@2 of five samples is the mean over the two whole blocks: a tie with one right answer, and two right ones."""
    assert majority_at(2, [0, 1, 0, 0, 1], [True, False, True, True, False]) == 0.75


def test_a_sample_without_a_value_is_left_out() -> None:
    """Question 1 has one value of two, so it counts for k = 1 alone; the mean for k = 2 is that of question 0."""
    row = solved_row(np.array([[1.0, 0.0], [np.nan, 0.0]]), np.array([[0, 1], [0, 1]]))
    assert row == {"pass@1": 0.25, "maj@1": 0.25, "pass@2": 1.0, "maj@2": 0.5}
