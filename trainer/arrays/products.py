"""Products of matrices in the order that the compilers take best.

In: arrays with leading axes. Out: one matrix. It refuses to know what the factors mean.
"""

from typing import Any

import jax
import jax.numpy as jnp


def summed_outer(left: jax.Array, right: jax.Array, dtype: Any) -> jax.Array:
    """[..., a], [..., b] -> [a, b]: the sum over the leading axes of left · rightᵀ, added up in `dtype`.

    It is what autodiff gives a matrix of weights, but with the narrower factor first: XLA's CPU backend turns the
    first one around in memory, element by element over large strides, which for a wide one takes longer than the
    product itself. The barrier keeps it from swapping the factors back.
    """
    if left.shape[-1] <= right.shape[-1]:
        return jnp.einsum("...a,...b->ab", left, right, preferred_element_type=dtype)
    turned: jax.Array = jax.lax.optimization_barrier(
        jnp.einsum("...b,...a->ba", right, left, preferred_element_type=dtype)
    )
    return turned.T
