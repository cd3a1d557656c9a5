"""What a model thinks of given completions: the log-probability of every token, and the entropy where it was chosen.

In: parameters and padded rows. Out: two arrays over the completion's tokens. It refuses to know what is done with
them, and whose parameters these are: the policy's, an older one's or the reference's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from trainer.arrays.logprobs import token_logprobs
from trainer.arrays.truncation import Truncation
from trainer.contract.runner import Remat
from trainer.mesh import DATA
from trainer.model.config import ModelConfig
from trainer.model.decoder import Params, head, hidden_states
from trainer.model.sharding import constrain

TOKENS_PER_CHUNK = 512
"""Tokens whose logits a device holds at once: in float32 over a vocabulary of 152k, 311 MB."""

Scorer = Callable[[Params, jax.Array, jax.Array, int], tuple[jax.Array, jax.Array]]
"""(parameters, tokens [row, token], valid [row, token], width) -> two float32 arrays [row, last `width` tokens]."""


def make_scorer(
    config: ModelConfig,
    mesh: Mesh,
    *,
    temperature: float,
    truncation: Truncation = Truncation(),  # noqa: B008 - frozen
    compute_dtype: Any,
    remat: Remat,
) -> Scorer:
    """Log-probabilities and entropies (nats) under softmax(logits / temperature); the gradient goes to the weights.

    With the `truncation` of the rollout, the policy is the truncated one: samples come from it, so it is the one that
    a ratio to them and its gradient must be of. A ratio over the whole vocabulary would be that of another policy,
    biased by the share of the vocabulary that was cut off at each token.
    """
    score_tokens = partial(token_logprobs, temperature=temperature, truncation=truncation)
    states = partial(hidden_states, config=config, mesh=mesh, compute_dtype=compute_dtype, remat=remat)

    def score(params: Params, tokens: jax.Array, valid: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
        positions = jnp.maximum(jnp.cumsum(valid, axis=-1, dtype=jnp.int32) - 1, 0)
        hidden = states(params, tokens=tokens, positions=positions, mask=valid)
        return _score(score_tokens, hidden, params, tokens, width, mesh)

    return score


def _score(
    score_tokens: Callable[..., tuple[jax.Array, jax.Array]],
    hidden: jax.Array,
    params: Params,
    tokens: jax.Array,
    width: int,
    mesh: Mesh,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability and entropy of the completion tokens; states of the prompt never meet the head."""
    start = tokens.shape[-1] - width
    rows = -(-tokens.shape[0] // (mesh.shape["dp"] * mesh.shape["fsdp"]))
    score = partial(score_tokens, chunk=max(TOKENS_PER_CHUNK // rows, 1))

    def score_shard(hidden: jax.Array, matrix: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Each shard sums its own gradient of the head over its chunks; the shards add theirs up once, where the head
        # begins to vary. There it is float32, so that the sum is: the two casts around it cancel on the way forward.
        own = jax.lax.pcast(matrix.astype(jnp.float32), DATA, to="varying")
        return score(hidden, own.astype(matrix.dtype), targets)

    over_shards, everywhere = PartitionSpec(DATA), PartitionSpec()
    score_rows = jax.shard_map(
        score_shard,
        mesh=mesh,
        in_specs=(over_shards, everywhere, over_shards),
        out_specs=(over_shards, over_shards),
        axis_names=set(DATA),
    )
    matrix = constrain(head(params).astype(hidden.dtype), mesh, "tp", None)
    return score_rows(hidden[:, start - 1 : -1], matrix, tokens[:, start:])
