"""Overlong shaping against the cases of its formula."""

import numpy as np

from trainer.grpo.shaping import overlong_penalty


def test_the_reward_falls_over_the_buffer_only() -> None:
    """Longest 20, buffer 4: nothing up to 16 tokens, a quarter each from there, and -1 at 20."""
    lengths = np.array([[1.0, 16.0, 17.0], [18.0, 19.0, 20.0]])
    assert overlong_penalty(lengths, 20, 4).tolist() == [[0, 0, -0.25], [-0.5, -0.75, -1]]


def test_without_a_buffer_nothing_is_punished() -> None:
    """Not even a completion of the longest length."""
    assert overlong_penalty(np.array([20.0]), 20, 0).tolist() == [0]
