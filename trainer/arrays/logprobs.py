"""Log-probabilities and entropies of given tokens, without ever holding logits for all of them.

In: hidden states and the output head. Out: one log-probability and one entropy per token.
It refuses to know what a prompt, a mask or an advantage is.
"""

from functools import partial

import jax
import jax.numpy as jnp

from trainer.arrays.products import summed_outer
from trainer.arrays.truncation import Truncation, kept

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


NEVER_DRAWN = -1e30
"""The logit of a token that truncation left out; finite, so that 0 · log 0 in the entropy is 0."""


def token_logprobs(
    hidden: jax.Array,
    head: jax.Array,
    targets: jax.Array,
    *,
    temperature: float,
    chunk: int,
    truncation: Truncation = Truncation(),  # noqa: B008 - frozen
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of `targets` and entropy under softmax(hidden · headᵀ / temperature), in nats.

    `hidden` [row, token, embed] in the compute dtype; `head` [vocab, embed], cast to it; `targets` [row, token] int32.
    Returns two float32 [row, token]. Sums are in float32, also those of the head's gradient. Logits exist for at most
    `chunk` tokens of every row at a time, and the backward pass makes them again, so memory is O(row · chunk · vocab)
    whatever the number of tokens. The entropy is a measurement: it has no gradient.

    With a `truncation` the softmax is over the tokens that it keeps, and the target: the policy is the one that was
    sampled from. Which tokens are kept is no part of the gradient, as with the "Keep Sampling Mask" of
    https://arxiv.org/abs/2512.02556, but they are those of these states, not of the states that sampled.
    """
    tokens = hidden.shape[1]
    chunks = -(-tokens // chunk)
    split = partial(_split, chunks=chunks, chunk=-(-tokens // chunks))
    logprobs, entropies = _score(split(hidden), head, split(targets), temperature, truncation)
    return _join(logprobs)[:, :tokens], _join(jax.lax.stop_gradient(entropies))[:, :tokens]


def _split(array: jax.Array, *, chunks: int, chunk: int) -> jax.Array:
    """[row, token, ...] -> [chunk number, row, chunk, ...], zeros at the end."""
    rows, tokens, *rest = array.shape
    padded = jnp.pad(array, ((0, 0), (0, chunks * chunk - tokens), *((0, 0),) * len(rest)))
    return padded.reshape(rows, chunks, chunk, *rest).swapaxes(0, 1)


def _join(array: jax.Array) -> jax.Array:
    chunks, rows, chunk = array.shape
    return array.swapaxes(0, 1).reshape(rows, chunks * chunk)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _score(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, temperature: float, truncation: Truncation
) -> tuple[jax.Array, jax.Array]:
    return _score_forward(hidden, head, targets, temperature, truncation)[0]


def _score_forward(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, temperature: float, truncation: Truncation
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    def score(_: None, chunk: tuple[jax.Array, jax.Array]) -> tuple[None, tuple[jax.Array, ...]]:
        states, wanted = chunk
        logits = _logits(states, head, wanted, temperature, truncation)
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        logs = logits - normaliser[..., None]
        return None, (logit_of(logs, wanted), _entropy(logs), normaliser)

    _, (logprobs, entropies, normalisers) = jax.lax.scan(score, None, (hidden, targets))
    return (logprobs, entropies), (hidden, head, targets, normalisers)


def _entropy(logs: jax.Array) -> jax.Array:
    # As products of vectors: XLA's CPU compiler sums exp(x) · x one number at a time. For TPUs both are one program.
    return -jnp.einsum("rtv,rtv->rt", jnp.exp(logs), logs, precision="highest")


def _score_backward(
    temperature: float, truncation: Truncation, residuals: Residuals, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None]:
    """∂ log p(target) / ∂ logit = [is target] - p, through the temperature and the two factors of the product."""
    hidden, head, targets, normalisers = residuals

    def transpose(head_grad: jax.Array, chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        states, wanted, normaliser, cotangent = chunk
        logits = _logits(states, head, wanted, temperature, truncation)
        slope = jnp.where(_is_target(logits, wanted), 1.0, 0.0) - jnp.exp(logits - normaliser[..., None])
        slope = (slope * (cotangent / temperature)[..., None]).astype(states.dtype)
        head_grad = head_grad + summed_outer(slope, states, jnp.float32)
        return head_grad, jnp.einsum("rtv,ve->rte", slope, head.astype(states.dtype))

    # Derived from the head, not made new, so that it is split over devices as the head is.
    nothing = (head * 0).astype(jnp.float32)
    head_grad, hidden_grad = jax.lax.scan(transpose, nothing, (hidden, targets, normalisers, cotangents[0]))
    return hidden_grad, head_grad.astype(head.dtype), None


_score.defvjp(_score_forward, _score_backward)


def _logits(
    states: jax.Array, head: jax.Array, targets: jax.Array, temperature: float, truncation: Truncation
) -> jax.Array:
    product = jnp.einsum("rte,ve->rtv", states, head.astype(states.dtype), preferred_element_type=jnp.float32)
    logits = product / temperature
    if not truncation.active:
        return logits
    # A target was drawn: where it lies at the border, other rounding must not make it impossible.
    return jnp.where(kept(logits, truncation) | _is_target(logits, targets), logits, NEVER_DRAWN)


def logit_of(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Of `logits` [..., row or 1, vocab] those of `targets` int32 [..., row]; logits of one row are for all."""
    shape = (*targets.shape, logits.shape[-1])
    return jnp.where(_is_target(jnp.broadcast_to(logits, shape), targets), logits, 0.0).sum(axis=-1)


def _is_target(logits: jax.Array, targets: jax.Array) -> jax.Array:
    # By comparison, not by index: a gather from a vocabulary split over tp would first be put together.
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1) == targets[..., None]
