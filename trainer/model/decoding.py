"""The decoder one token at a time: prompts read once, then rows that share a prompt's keys and values.

Comes in: `Params`, prompts, the last token of each row. Goes out: hidden states and what a cache must keep. Refuses to
know: sampling, stop tokens, when to end.

Rows stand in blocks: a block is some rows of one prompt, beside each other. Axes: layer, slot (a prompt as it is kept),
block, row (in its block), kv (key-value head), token, head_dim. Attention of a row is one softmax over three parts: the
prompt, its own suffix so far, and itself; so that a prompt's keys and values are kept and read once for a whole block.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trainer.model.config import ModelConfig
from trainer.model.decoder import Attend, Layer, Params, causal_attention, decoder_layer, embed, rms_norm
from trainer.model.rope import rotations
from trainer.model.sharding import DATA, constrain, param_specs, without_fsdp


class KeysValues(NamedTuple):
    """Rotated keys, and values, [layer, ..., kv, token, head_dim]: tokens beside head_dim, as the dot reads them."""

    keys: jax.Array
    values: jax.Array


def weights_for_decoding(params: Params, mesh: jax.sharding.Mesh, compute_dtype: Any, *, whole: bool) -> Params:
    """The weights in the compute dtype; `whole`: gathered over the data axes now, not once for every token."""
    cast: Params = jax.tree.map(lambda weight: weight.astype(compute_dtype), params)
    if not whole:
        return cast
    gathered: Params = jax.tree.map(
        lambda weight, spec: constrain(weight, mesh, *without_fsdp(spec)), cast, param_specs(cast)
    )
    return gathered


def prefill(
    params: Params, config: ModelConfig, tokens: jax.Array, lengths: jax.Array, *, mesh: jax.sharding.Mesh, dtype: Any
) -> tuple[jax.Array, KeysValues]:
    """Read prompts [slot, token], padded on the left to `lengths` real tokens.

    Returns the hidden state of each last token, [slot, embed] after the final norm, and keys and values
    [layer, slot, kv, token, head_dim].
    """
    size = tokens.shape[1]
    places = jnp.arange(size, dtype=jnp.int32)[None] - (size - lengths[:, None])
    turn = rotations(config, jnp.maximum(places, 0))
    attend = causal_attention(places >= 0)

    def layer_step(hidden: jax.Array, layer: Layer) -> tuple[jax.Array, KeysValues]:
        hidden, kept = decoder_layer(hidden, layer, config, turn, attend, mesh)
        keys, values = (constrain(part.swapaxes(1, 2), mesh, DATA, "tp", None, None) for part in kept)
        return hidden, KeysValues(keys, values)

    hidden, prompt = jax.lax.scan(layer_step, embed(params, tokens, mesh, dtype), params["layers"])
    return rms_norm(hidden[:, -1], params["final_norm"], config.rms_eps), prompt


def empty_suffix(prompt: KeysValues, rows: int, tokens: int, mesh: jax.sharding.Mesh) -> KeysValues:
    """Room for `tokens` tokens of every row: zeros [layer, block, row, kv, token, head_dim]."""
    layers, blocks, kv_heads, _, head_dim = prompt.keys.shape
    zeros = jnp.zeros((layers, blocks, rows, kv_heads, tokens, head_dim), prompt.keys.dtype)
    room = constrain(zeros, mesh, None, DATA, None, "tp", None, None)
    return KeysValues(room, room)


def grown(suffix: KeysValues, tokens: int) -> KeysValues:
    """The same suffix with room for `tokens` tokens."""
    widths = [(0, 0)] * suffix.keys.ndim
    widths[-2] = (0, tokens - suffix.keys.shape[-2])
    return KeysValues(jnp.pad(suffix.keys, widths), jnp.pad(suffix.values, widths))


def decode(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    lengths: jax.Array,
    index: jax.Array,
    prompt: KeysValues,
    suffix: KeysValues,
    *,
    mesh: jax.sharding.Mesh,
) -> tuple[jax.Array, KeysValues]:
    """Read one more token of every row.

    `tokens` [block, row] are the tokens number `index` (int32 scalar, from 0) of their completions, `lengths` [block]
    the prompts' lengths, `prompt` [layer, block, kv, token, head_dim]. Returns hidden states [block, row, embed] after
    the final norm, and the suffix with this token's keys and values at `index`.
    """
    positions = jnp.broadcast_to((lengths + index)[:, None], tokens.shape)
    turn = rotations(config, positions)
    size = prompt.keys.shape[-2]
    seen_prompt = jnp.arange(size, dtype=jnp.int32)[None] >= size - lengths[:, None]
    seen_suffix = jnp.arange(suffix.keys.shape[-2], dtype=jnp.int32) < index

    def layer_step(hidden: jax.Array, inputs: tuple[Layer, KeysValues, KeysValues]) -> tuple[jax.Array, KeysValues]:
        layer, past_prompt, past_suffix = inputs
        attend = _attend_to_parts(past_prompt, seen_prompt, past_suffix, seen_suffix)
        hidden, (keys, values) = decoder_layer(hidden, layer, config, turn, attend, mesh)
        return hidden, KeysValues(keys, values)

    # The scan only reads the suffix, and one write per token puts all layers' new entries in place: a cache that is
    # carried through the layers would be copied.
    hidden = embed(params, tokens, mesh, suffix.keys.dtype)
    hidden, new = jax.lax.scan(layer_step, hidden, (params["layers"], prompt, suffix))
    suffix = KeysValues(*(_write(past, now, index) for past, now in zip(suffix, new, strict=True)))
    return rms_norm(hidden, params["final_norm"], config.rms_eps), suffix


def _write(past: jax.Array, now: jax.Array, index: jax.Array) -> jax.Array:
    zero = jnp.int32(0)
    return jax.lax.dynamic_update_slice(past, jnp.expand_dims(now, -2), (zero, zero, zero, zero, index, zero))


def _attend_to_parts(prompt: KeysValues, seen_prompt: jax.Array, suffix: KeysValues, seen_suffix: jax.Array) -> Attend:
    """One softmax over prompt, suffix and the token itself, in float32, merged by their common maximum."""

    def attend(queries: jax.Array, keys: jax.Array, values: jax.Array) -> tuple[jax.Array, Any]:
        blocks, rows, heads, head_dim = queries.shape
        kv_heads = keys.shape[-2]
        grouped = queries.reshape(blocks, rows, kv_heads, heads // kv_heads, head_dim) * head_dim**-0.5
        scores = (
            _masked(_dot("brkqd,bktd->brkqt", grouped, prompt.keys), seen_prompt[:, None, None, None]),
            _masked(_dot("brkqd,brktd->brkqt", grouped, suffix.keys), seen_suffix[None, None, None, None]),
            _dot("brkqd,brkd->brkq", grouped, keys)[..., None],
        )
        top = jnp.max(
            jnp.concatenate([part.max(axis=-1, keepdims=True) for part in scores], axis=-1), -1, keepdims=True
        )
        shares = [jnp.exp(part - top) for part in scores]
        total = sum(share.sum(axis=-1, keepdims=True) for share in shares)
        over_prompt, over_suffix, over_self = (share.astype(values.dtype) for share in shares)
        attended = (
            _dot("brkqt,bktd->brkqd", over_prompt, prompt.values)
            + _dot("brkqt,brktd->brkqd", over_suffix, suffix.values)
            + _dot("brkqt,brktd->brkqd", over_self, values[..., None, :])
        )
        return (attended / total).astype(queries.dtype).reshape(queries.shape), (keys, values)

    return attend


def _dot(equation: str, left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.einsum(equation, left, right, preferred_element_type=jnp.float32)


def _masked(scores: jax.Array, seen: jax.Array) -> jax.Array:
    return jnp.where(seen, scores, jnp.float32(-1e30))
