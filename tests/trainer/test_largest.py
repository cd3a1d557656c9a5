"""Which entry of a vector is the largest."""

import jax.numpy as jnp
import numpy as np

from trainer.arrays.largest import index_of_largest


def test_it_is_numpy_s() -> None:
    """The first of equal ones, infinities included, as numpy finds it; without a number, some index in range."""
    rows = np.random.default_rng(0).integers(-3, 3, (50, 7)).astype(np.float32)
    rows[:5, 2] = np.inf
    rows[5:9] = -np.inf
    np.testing.assert_array_equal(index_of_largest(jnp.asarray(rows)), rows.argmax(axis=-1))
    assert 0 <= int(index_of_largest(jnp.full(7, jnp.nan))) < 7
