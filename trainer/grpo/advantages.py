"""Advantages: what each completion's reward says against the other completions of its prompt.

In: rewards [prompt, group] on the host. Out: advantages of the same shape.
It refuses to know where rewards come from and how they reach a loss.
"""

from typing import Literal

import numpy as np

Estimator = Literal["grpo", "dr_grpo", "rloo"]

STD_EPSILON = 1e-4
"""Added to the deviation, as TRL does (https://github.com/huggingface/trl, `GRPOTrainer`)."""


def group_advantages(
    rewards: np.ndarray, valid: np.ndarray, *, estimator: Estimator = "grpo", ddof: int = 0
) -> np.ndarray:
    """Advantages [prompt, group] float32 of `rewards` [prompt, group]; `valid` (bool) is False where none was given.

    With mean, deviation and n over a group's valid rewards:
    - grpo: (r - mean) / (std + 1e-4), https://arxiv.org/abs/2402.03300 eq. 3, where the paper adds nothing to std.
      `ddof` 0 is the population deviation, which is ours; 1 is TRL's;
    - dr_grpo: r - mean, https://arxiv.org/abs/2503.20783;
    - rloo: r - mean of the others = (r - mean) · n / (n - 1), https://arxiv.org/abs/2402.14740.

    A group whose valid rewards are all equal, or that has one, gives exactly 0; so does a reward that is not valid.
    """
    count = valid.sum(axis=1, keepdims=True)
    known = np.where(valid, rewards, 0.0).astype(np.float64)
    deviation = np.where(valid, known - known.sum(axis=1, keepdims=True) / np.maximum(count, 1), 0.0)
    if estimator == "grpo":
        variance = (deviation**2).sum(axis=1, keepdims=True) / np.maximum(count - ddof, 1)
        deviation = deviation / (np.sqrt(variance) + STD_EPSILON)
    elif estimator == "rloo":
        deviation = deviation * count / np.maximum(count - 1, 1)
    # The mean of equal numbers is not exactly that number: 0.1 + 0.1 + 0.1 is not 3 · 0.1.
    return np.where(differing(rewards, valid)[:, None], deviation, 0.0).astype(np.float32)


def differing(rewards: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Bool [prompt]: the groups in which two valid rewards differ; the others have no variance, and teach nothing."""
    low, high = (np.where(valid, rewards, limit) for limit in (np.inf, -np.inf))
    differs: np.ndarray = low.min(axis=1) < high.max(axis=1)
    return differs


def batch_advantages(rewards: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(r - mean) / (std + 1e-4) over all valid rewards of the whole batch: REINFORCE++, https://arxiv.org/abs/2501.03262.

    `rewards` and `valid` are those of all processes, [prompt, group] as in `group_advantages`; which prompt a reward
    belongs to is not looked at. The deviation is the population's. Equal rewards give exactly 0.
    """
    return group_advantages(rewards.reshape(1, -1), valid.reshape(1, -1)).reshape(rewards.shape)
