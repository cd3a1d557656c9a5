"""The order of questions: a permutation per epoch, and one cursor over all epochs. Two integers are its whole state."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def draw(seed: int, size: int, cursor: int, count: int) -> list[int]:
    """Rows of the questions `cursor … cursor + count - 1` of an endless run through epochs of `size` rows.

    Within an epoch no row comes twice. The order depends on nothing but seed, size and cursor: not on the number of
    processes, and not on how the run was cut into steps.
    """
    places = [divmod(position, size) for position in range(cursor, cursor + count)]
    return [int(_permutation(seed, epoch, size)[offset]) for epoch, offset in places]


def epoch_of(size: int, cursor: int) -> float:
    """Epochs completed, with the fraction of the open one."""
    return cursor / size


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    # Raw Philox words are stable across NumPy versions; Generator.permutation is not promised to be (NEP 19).
    words = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(size)
    return np.argsort(words, kind="stable")
