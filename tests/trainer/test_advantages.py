"""Advantages inside a group, against numbers worked by hand and TRL's."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.grpo.advantages import batch_advantages, group_advantages

ESTIMATORS = ("grpo", "dr_grpo", "rloo")


def advantages(*groups: list[float | None], **choice: object) -> np.ndarray:
    rewards = np.array([[np.nan if reward is None else reward for reward in group] for group in groups])
    return group_advantages(rewards, np.isfinite(rewards), **choice)


def test_grpo_divides_by_the_population_deviation() -> None:
    """Rewards 0, 0, 0, 4: mean 1, population deviation √3."""
    root = 3**0.5 + 1e-4
    np.testing.assert_allclose(advantages([0, 0, 0, 4]), [[-1 / root, -1 / root, -1 / root, 3 / root]], rtol=1e-6)


def test_dr_grpo_only_subtracts_the_mean() -> None:
    """Rewards 0, 0, 0, 4: mean 1."""
    assert advantages([0, 0, 0, 4], estimator="dr_grpo").tolist() == [[-1, -1, -1, 3]]


def test_rloo_subtracts_the_mean_of_the_others() -> None:
    """Rewards 0, 0, 3: the others of the last have mean 0, those of a first have 1.5."""
    assert advantages([0, 0, 3], estimator="rloo").tolist() == [[-1.5, -1.5, 3]]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_reward_that_is_not_valid_counts_nowhere(estimator: str) -> None:
    """Its own advantage is 0, and the others are those of the group without it."""
    whole = advantages([0, 1, 5], estimator=estimator)
    assert advantages([0, None, 1, 5], estimator=estimator).tolist() == [[*whole[0, :1], 0, *whole[0, 1:]]]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@given(
    reward=st.floats(-1e6, 1e6, width=32), valid=st.lists(st.booleans(), min_size=1, max_size=9), ddof=st.integers(0, 1)
)
def test_a_group_without_variance_gives_exactly_zero(
    estimator: str, reward: float, valid: list[bool], ddof: int
) -> None:
    """Equal rewards give 0 to the last bit, whatever they are, how many are valid, and which deviation is used."""
    rewards = np.where(valid, np.float32(reward), np.nan)[None]
    result = group_advantages(rewards, np.array([valid]), estimator=estimator, ddof=ddof)
    assert result.dtype == np.float32
    assert not result.any()


def test_reinforce_plus_plus_whitens_over_the_whole_batch() -> None:
    """Rewards 0, 1 | 3, none: mean 4/3, population deviation √(14/9), whatever the groups; what is not valid gets 0."""
    rewards = np.array([[0.0, 1.0], [3.0, np.nan]])
    root = (14 / 9) ** 0.5 + 1e-4
    expected = [[-4 / 3 / root, -1 / 3 / root], [5 / 3 / root, 0]]
    np.testing.assert_allclose(batch_advantages(rewards, np.isfinite(rewards)), expected, rtol=1e-6)
    assert not batch_advantages(np.full((3, 1), 0.1), np.ones((3, 1), bool)).any()


def test_groups_do_not_see_each_other() -> None:
    """Two prompts in one call give what each gives alone."""
    together = advantages([0, 1, 1], [7, 7, 9])
    assert together.tolist() == [*advantages([0, 1, 1]).tolist(), *advantages([7, 7, 9]).tolist()]


@pytest.mark.parametrize("model", ["qwen2-tied", "qwen2-untied"])
@pytest.mark.parametrize(("name", "ddof"), [("advantages", 0), ("advantages_sample_std", 1)])
def test_advantages_are_those_of_trl(oracles: Path, model: str, name: str, ddof: int) -> None:
    """The rewards of the reference batch give its advantages, with the population and with the sample deviation."""
    group = json.loads((oracles / model / "losses.json").read_text())["group_size"]
    arrays = np.load(oracles / model / "losses.npz")
    rewards = arrays["rewards"].reshape(-1, group)
    result = group_advantages(rewards, np.ones(rewards.shape, bool), ddof=ddof)
    np.testing.assert_allclose(result.reshape(-1), arrays[name], rtol=1e-5)
