"""The gradient of a weight as a sum of outer products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainer.arrays.products import summed_outer
from trainer.model.decoder import matmul


def test_outer_products_are_summed_over_leading_axes() -> None:
    """(1, 2) ⊗ (1, 10, 100) + (3, 4) ⊗ (5, 0, 0), whichever factor is the wider, and in the precision asked for."""
    narrow, wide = jnp.float32([[[1, 2], [3, 4]]]), jnp.float32([[[1, 10, 100], [5, 0, 0]]])
    expected = np.float32([[16, 10, 100], [22, 20, 200]])
    np.testing.assert_array_equal(summed_outer(narrow, wide, jnp.float32), expected)
    np.testing.assert_array_equal(summed_outer(wide, narrow, jnp.float32), expected.T)
    ones = jnp.ones((1000, 3), jnp.bfloat16)
    assert np.asarray(summed_outer(ones, ones[:, :2], jnp.float32)).tolist() == [[1000.0] * 2] * 3


@pytest.mark.parametrize(("inner", "outer"), [(5, 7), (7, 5), (6, 6)])
def test_gradients_of_a_layers_product_are_those_of_autodiff(inner: int, outer: int) -> None:
    """Of the inputs and of the weight, for weights that widen, narrow or keep."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs, weight, slope = (
        jax.random.normal(key, shape)
        for key, shape in zip(keys, [(2, 3, inner), (outer, inner), (2, 3, outer)], strict=True)
    )
    ours = jax.vjp(matmul, inputs, weight)[1](slope)
    theirs = jax.vjp(lambda x, w: jnp.einsum("rti,oi->rto", x, w), inputs, weight)[1](slope)
    for mine, plain in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-5, atol=1e-6)
