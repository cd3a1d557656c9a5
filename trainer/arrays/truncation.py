"""Which tokens a truncated distribution keeps: top-k, top-p and min-p as one mask over the vocabulary.

In: logits, tempered. Out: a mask of the same shape. It refuses to know what is drawn from them, and on which device a
part of the vocabulary lives.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_BITS = 32


class Truncation(NamedTuple):
    """The defaults keep every token."""

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def active(self) -> bool:
        return self != Truncation()


def kept(logits: jax.Array, truncation: Truncation) -> jax.Array:
    """Bool like `logits` float32 [..., vocab]: the tokens that may be drawn, never none.

    One after the other, as in transformers: the `top_k` most likely; of these, renormalised, the fewest most likely
    that together reach `top_p` (https://arxiv.org/abs/1904.09751); of these, those with at least `min_p` times the
    likelihood of the most likely (https://arxiv.org/abs/2407.01082). Tokens as likely as the last one kept are kept
    too, so that no order among equals is needed.

    Each is a threshold, found by bisection over the bits of the numbers from counts and sums: exact, and where the
    vocabulary is split over devices, only those scalars travel. Sorting would put the vocabulary together first.
    """
    ranks, largest = _ranks(logits), logits.max(axis=-1, keepdims=True)
    mask = jnp.ones(logits.shape, bool)
    if 0 < truncation.top_k < logits.shape[-1]:
        mask = ranks >= _threshold(ranks, lambda above: above.sum(-1, keepdims=True), jnp.int32(truncation.top_k))
    if truncation.top_p < 1.0:
        weights = jnp.where(mask, jnp.exp(logits - largest), 0.0)
        wanted = weights.sum(-1, keepdims=True) * truncation.top_p
        mask &= ranks >= _threshold(ranks, lambda above: jnp.where(above, weights, 0.0).sum(-1, keepdims=True), wanted)
    if truncation.min_p > 0.0:
        mask &= logits >= largest + jnp.log(jnp.float32(truncation.min_p))
    return mask


def _ranks(logits: jax.Array) -> jax.Array:
    """uint32 in the order of the floats: those below zero have their bits turned round."""
    bits = jax.lax.bitcast_convert_type(logits, jnp.uint32)
    sign = jnp.uint32(1 << (_BITS - 1))
    return jnp.where(bits >= sign, ~bits, bits | sign)


def _threshold(ranks: jax.Array, measure: Callable[[jax.Array], jax.Array], wanted: jax.Array) -> jax.Array:
    """The largest rank [..., 1] whose tokens at or above it measure at least `wanted`, bit by bit from the top."""

    def settle(number: jax.Array, threshold: jax.Array) -> jax.Array:
        higher = threshold | (jnp.uint32(1) << (_BITS - 1 - number).astype(jnp.uint32))
        return jnp.where(measure(ranks >= higher) >= wanted, higher, threshold)

    threshold: jax.Array = jax.lax.fori_loop(0, _BITS, settle, jnp.zeros_like(ranks[..., :1]))
    return threshold
