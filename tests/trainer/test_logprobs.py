"""Token log-probabilities and entropies in chunks."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from trainer.arrays.logprobs import token_logprobs
from trainer.arrays.truncation import Truncation, kept


def inputs(rows: int, tokens: int, embed: int, vocab: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(3), 3)
    hidden = jax.random.normal(keys[0], (rows, tokens, embed))
    head = jax.random.normal(keys[1], (vocab, embed))
    return hidden, head, jax.random.randint(keys[2], (rows, tokens), 0, vocab)


def plain(hidden: jax.Array, head: jax.Array, targets: jax.Array, temperature: float) -> tuple[jax.Array, jax.Array]:
    """The same from the whole [row, token, vocab], as a textbook has it."""
    table = jax.nn.log_softmax(jnp.einsum("rte,ve->rtv", hidden, head) / temperature)
    return jnp.take_along_axis(table, targets[..., None], -1)[..., 0], -(jnp.exp(table) * table).sum(-1)


def test_numbers_worked_by_hand() -> None:
    """Logits ln 1, ln 3 at temperature 1 give 1/4 and 3/4; at temperature 1/2 they give 1/10 and 9/10."""
    head = jnp.log(jnp.array([[1.0], [3.0]]))
    hidden, targets = jnp.ones((1, 2, 1)), jnp.array([[0, 1]])
    for temperature, (low, high) in {1.0: (0.25, 0.75), 0.5: (0.1, 0.9)}.items():
        logprob, entropy = token_logprobs(hidden, head, targets, temperature=temperature, chunk=1)
        np.testing.assert_allclose(logprob[0], [math.log(low), math.log(high)], rtol=1e-6)
        np.testing.assert_allclose(entropy[0], 2 * [-low * math.log(low) - high * math.log(high)], rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 16])
def test_chunks_do_not_change_values_or_gradients(chunk: int) -> None:
    """Values and gradients are those of the whole softmax, also where the chunk does not divide the tokens."""
    hidden, head, targets = inputs(2, 7, 5, 11)

    def total(function: Callable[..., tuple[jax.Array, jax.Array]], *arguments: jax.Array) -> jax.Array:
        return (function(*arguments, targets)[0] * jnp.arange(14.0).reshape(2, 7)).sum()

    def chunked(*arguments: jax.Array) -> tuple[jax.Array, jax.Array]:
        return token_logprobs(*arguments, temperature=0.7, chunk=chunk)

    def whole(*arguments: jax.Array) -> tuple[jax.Array, jax.Array]:
        return plain(*arguments, 0.7)

    for ours, theirs in zip(chunked(hidden, head, targets), whole(hidden, head, targets), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = [jax.grad(total, argnums=(1, 2))(function, hidden, head) for function in (chunked, whole)]
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_bfloat16_inputs_are_accumulated_in_float32() -> None:
    """With bfloat16 states and a float32 head, only the inputs are rounded: sums and softmax are float32."""
    hidden, head, targets = inputs(2, 8, 64, 97)
    low = hidden.astype(jnp.bfloat16)
    logprob, entropy = token_logprobs(low, head, targets, temperature=1.0, chunk=4)
    rounded = [array.astype(jnp.bfloat16).astype(jnp.float32) for array in (hidden, head)]
    assert logprob.dtype == entropy.dtype == jnp.float32
    for ours, theirs in zip((logprob, entropy), plain(*rounded, targets, 1.0), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_the_head_is_summed_over_chunks_in_float32() -> None:
    """In bfloat16 compute, 64 equal chunks give 64 times the gradient of one: a bfloat16 sum would stall."""
    _, head, _ = inputs(1, 1, 8, 13)
    state = jax.random.normal(jax.random.key(9), (1, 1, 8), jnp.bfloat16)

    def gradient(tokens: int) -> np.ndarray:
        hidden, targets = jnp.tile(state, (1, tokens, 1)), jnp.full((1, tokens), 5)
        score = jax.grad(lambda head: token_logprobs(hidden, head, targets, temperature=1.0, chunk=1)[0].sum())
        return np.asarray(score(head))

    np.testing.assert_allclose(gradient(67), 67 * gradient(1), rtol=1e-5)


def test_logits_of_all_tokens_never_exist_at_once() -> None:
    """Forward and backward need a few chunks of logits, far below [row, token, vocab], which the plain form needs."""
    rows, tokens, embed, vocab, chunk = 4, 512, 16, 16384, 32
    logits = rows * tokens * vocab * 4
    arguments = inputs(rows, tokens, embed, vocab)

    def temporaries(function: Callable[..., tuple[jax.Array, jax.Array]]) -> int:
        def loss(hidden: jax.Array, head: jax.Array, targets: jax.Array) -> jax.Array:
            return sum(array.sum() for array in function(hidden, head, targets))

        lowered = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arguments)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporaries(lambda *a: plain(*a, 1.0)) >= logits
    assert temporaries(lambda *a: token_logprobs(*a, temperature=1.0, chunk=chunk)) < 6 * logits * chunk // tokens


def test_the_vocabulary_may_be_split() -> None:
    """With the head's vocabulary over 4 devices and rows over 2, values are those of one device."""
    hidden, head, targets = inputs(2, 6, 5, 16)
    mesh = jax.make_mesh((2, 4), ("data", "tp"), axis_types=2 * (jax.sharding.AxisType.Auto,))
    rows, vocab = (NamedSharding(mesh, PartitionSpec(axis)) for axis in ("data", "tp"))
    scores = jax.jit(lambda *a: token_logprobs(*a, temperature=1.0, chunk=2))
    placed = jax.device_put((hidden, head, targets), (rows, vocab, rows))
    for ours, theirs in zip(scores(*placed), plain(hidden, head, targets, 1.0), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_truncation_is_a_constant_of_the_gradient() -> None:
    """Values, entropy and gradients are those of a softmax over the kept tokens and the target, worked with a mask."""
    hidden, head, targets = inputs(2, 5, 4, 30)
    truncation = Truncation(top_k=6, top_p=0.9)
    logits = jnp.einsum("rte,ve->rtv", hidden, head) / 0.8
    mask = kept(logits, truncation) | (jnp.arange(30)[None, None] == targets[..., None])
    assert not bool(jnp.take_along_axis(kept(logits, truncation), targets[..., None], -1).all())

    def chunked(hidden: jax.Array, head: jax.Array) -> tuple[jax.Array, jax.Array]:
        return token_logprobs(hidden, head, targets, temperature=0.8, chunk=2, truncation=truncation)

    def masked(hidden: jax.Array, head: jax.Array) -> tuple[jax.Array, jax.Array]:
        table = jax.nn.log_softmax(jnp.where(mask, jnp.einsum("rte,ve->rtv", hidden, head) / 0.8, -1e9))
        return jnp.take_along_axis(table, targets[..., None], -1)[..., 0], -(jnp.exp(table) * table).sum(-1)

    for ours, theirs in zip(chunked(hidden, head), masked(hidden, head), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = jnp.arange(10.0).reshape(2, 5)
    gradients = [
        jax.grad(lambda h, m, score=score: (score(h, m)[0] * weights).sum(), argnums=(0, 1))(hidden, head)
        for score in (chunked, masked)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)
