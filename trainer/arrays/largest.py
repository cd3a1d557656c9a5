"""Which entry of a vector is the largest.

In: numbers. Out: their index. It refuses to know what the numbers stand for.
"""

import jax
import jax.numpy as jnp


def index_of_largest(array: jax.Array) -> jax.Array:
    """int32 [...]: the first index of the largest entry along the last axis of `array`."""
    index: jax.Array = jax.lax.platform_dependent(array, cpu=_in_two_passes, default=_at_once)
    return index


def _at_once(array: jax.Array) -> jax.Array:
    return jnp.argmax(array, axis=-1).astype(jnp.int32)


def _in_two_passes(array: jax.Array) -> jax.Array:
    # XLA's CPU compiler carries value and index together through one entry after the other: four times as long.
    last = jnp.int32(array.shape[-1] - 1)  # where nothing equals the largest, which is NaN then
    index = jax.lax.broadcasted_iota(jnp.int32, array.shape, array.ndim - 1)
    return jnp.where(array == array.max(axis=-1, keepdims=True), index, last).min(axis=-1)
