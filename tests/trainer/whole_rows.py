"""Rows without padding through the model at once: what decoding, step by step, is compared with."""

from typing import Any

import jax
import jax.numpy as jnp

from trainer.model.config import ModelConfig
from trainer.model.decoder import Params, causal_attention, hidden_states


def states_of(params: Params, config: ModelConfig, mesh: Any, rows: jax.Array) -> jax.Array:
    """Hidden states [row, token, embed] in float32 of `rows` [row, token] of real tokens."""
    positions = jnp.broadcast_to(jnp.arange(rows.shape[1], dtype=jnp.int32)[None], rows.shape)
    attend = causal_attention(jnp.ones(rows.shape, bool))
    return hidden_states(params, config, rows, positions, attend, mesh=mesh, compute_dtype=jnp.float32)
