"""What a model thinks of given completions: the log-probability of every token, and the entropy where it was chosen.

In: parameters and rows in blocks. Out: two arrays over the completion's tokens. It refuses to know what is done with
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
from trainer.model.blocks import Blocks, completion_states, line_of, moved
from trainer.model.config import ModelConfig
from trainer.model.decoder import Params, head
from trainer.model.sharding import constrain

TOKENS_PER_CHUNK = 512
"""Tokens whose logits a device holds at once: in float32 over a vocabulary of 152k, 311 MB."""

Scorer = Callable[[Params, Blocks], tuple[jax.Array, jax.Array]]
"""(parameters, blocks of rows) -> two float32 arrays [row, completion token], 0 where there is no token."""


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
    score_tokens = _over_shards(
        partial(token_logprobs, temperature=temperature, chunk=TOKENS_PER_CHUNK, truncation=truncation), mesh
    )

    def score(params: Params, blocks: Blocks) -> tuple[jax.Array, jax.Array]:
        line = line_of(blocks)
        hidden, targets = completion_states(
            params, config, blocks, line, mesh=mesh, compute_dtype=compute_dtype, remat=remat
        )
        matrix = constrain(head(params).astype(hidden.dtype), mesh, "tp", None)
        scores = score_tokens(hidden, matrix, targets)
        logprobs, entropy = (moved(found, line.placed, line.picked) for found in scores)
        return logprobs.reshape(blocks.completions.shape), entropy.reshape(blocks.completions.shape)

    return score


def _over_shards(
    score: Callable[..., tuple[jax.Array, jax.Array]], mesh: Mesh
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """`score` on every data shard by itself, of states and targets [shard, place, ...]."""
    if mesh.shape["dp"] * mesh.shape["fsdp"] == 1:
        return score  # XLA's partitioner fails on a mapping over axes of one device beside a `tp` of several

    def score_shard(hidden: jax.Array, matrix: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Each shard sums its own gradient of the head over its chunks; the shards add theirs up once, where the head
        # begins to vary. There it is float32, so that the sum is: the two casts around it cancel on the way forward.
        own = jax.lax.pcast(matrix.astype(jnp.float32), DATA, to="varying")
        return score(hidden, own.astype(matrix.dtype), targets)

    over_shards, everywhere = PartitionSpec(DATA), PartitionSpec()
    mapped: Callable[..., tuple[jax.Array, jax.Array]] = jax.shard_map(
        score_shard,
        mesh=mesh,
        in_specs=(over_shards, everywhere, over_shards),
        out_specs=(over_shards, over_shards),
        axis_names=set(DATA),
    )
    return mapped
