"""Reward shaping: what an algorithm adds to a reward before completions are compared.

In: lengths in tokens, on the host. Out: a number to add to each reward. It refuses to know where rewards come from.
"""

import numpy as np
from numpy.typing import NDArray


def overlong_penalty(lengths: NDArray[np.float64], longest: int, buffer: int) -> NDArray[np.float64]:
    """0 up to `longest` - `buffer` tokens, then falling evenly to -1 at `longest`: DAPO's soft overlong punishment.

    Source: https://arxiv.org/abs/2503.14476 eq. 13, for `lengths` of any shape. A completion cannot be longer than
    `longest` here, so that one that was cut off gets -1. A `buffer` of 0 punishes nothing.
    """
    if not buffer:
        return np.zeros_like(lengths)
    return -np.clip((lengths - (longest - buffer)) / buffer, 0.0, 1.0)
