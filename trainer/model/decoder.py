"""The decoder as pure functions over a pytree of stacked layer weights, scanned over its layers.

Comes in: `Params`, tokens, positions, mask. Goes out: hidden states after the final norm, and the matrix that turns
them into logits. Refuses to know: logits (`trainer.arrays.logprobs` computes those chunk by chunk), losses, sampling.

`Params` = {"embed": [vocab, embed], "layers": {name: [layer, ...]}, "final_norm": [embed], "head": [vocab, embed]}, the
head only where it is not tied. Matrices are [out, in], as in the checkpoint, so that loading and saving are copies.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from trainer.arrays.products import summed_outer
from trainer.contract.runner import Remat
from trainer.model.config import ModelConfig
from trainer.model.rope import rotate, rotations
from trainer.model.sharding import DATA, constrain, layer_spec, without_fsdp

Params = dict[str, Any]
Layer = dict[str, jax.Array]
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""(queries, keys, values), each [..., head, head_dim] -> the attended queries, and what to keep of the layer."""


_PRODUCT = "product"
_KEPT = {
    "products": jax.checkpoint_policies.save_only_these_names(_PRODUCT),
    "layer": jax.checkpoint_policies.nothing_saveable,
}


def hidden_states(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    positions: jax.Array,
    attend: Attend,
    *,
    mesh: jax.sharding.Mesh | None,
    compute_dtype: Any,
    remat: Remat = "none",
) -> jax.Array:
    """Hidden states [batch, token, embed] in `compute_dtype`, after the final norm.

    `tokens` and `positions` are int32 [batch, token]; only `attend` knows which of them belong together, as rows
    (`causal_attention`) or otherwise. `mesh` pins layouts (None: the compiler's choice). For the backward pass each
    layer's input is kept, and beside it nothing (`remat` "layer"), its matrix products, but not those of attention,
    which grow with the square of the length ("products"), or everything, weights in the compute dtype included
    ("none").
    """
    turn = rotations(config, positions)

    def layer_step(hidden: jax.Array, layer: Layer) -> tuple[jax.Array, None]:
        return decoder_layer(hidden, layer, config, turn, attend, mesh)[0], None

    if remat != "none":
        layer_step = jax.checkpoint(layer_step, prevent_cse=False, policy=_KEPT[remat])
    hidden = embed(params, tokens, mesh, compute_dtype)
    hidden, _ = jax.lax.scan(layer_step, hidden, params["layers"])
    return rms_norm(hidden, params["final_norm"], config.rms_eps)


def head(params: Params) -> jax.Array:
    """[vocab, embed]: the matrix of the logits; the embedding itself where the head is tied."""
    matrix: jax.Array = params["head"] if "head" in params else params["embed"]
    return matrix


def embed(params: Params, tokens: jax.Array, mesh: jax.sharding.Mesh | None, compute_dtype: Any) -> jax.Array:
    """Rows of the embedding table, [*tokens.shape, embed]."""
    return constrain(_look_up(params["embed"], tokens, mesh, compute_dtype), mesh, DATA, *(None,) * tokens.ndim)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _look_up(table: jax.Array, tokens: jax.Array, mesh: jax.sharding.Mesh | None, dtype: Any) -> jax.Array:
    """The table travels between devices in the compute dtype, but its gradient is summed in float32.

    Autodiff would add up the thousands of places of a frequent token in bfloat16, where 256 + 1 is 256.
    """
    rows: jax.Array = constrain(table.astype(dtype), mesh, "tp", None)[tokens]
    return rows


def _look_up_forward(
    table: jax.Array, tokens: jax.Array, mesh: jax.sharding.Mesh | None, dtype: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _look_up(table, tokens, mesh, dtype), (table, tokens)


def _look_up_backward(
    mesh: jax.sharding.Mesh | None, _: Any, kept: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, None]:
    table, tokens = kept
    empty = constrain(jnp.zeros(table.shape, jnp.float32), mesh, "tp", None)
    summed = empty.at[tokens].add(cotangent.astype(jnp.float32))
    return constrain(summed, mesh, "tp", "fsdp").astype(table.dtype), None


_look_up.defvjp(_look_up_forward, _look_up_backward)


def decoder_layer(
    hidden: jax.Array,
    layer: Layer,
    config: ModelConfig,
    turn: tuple[jax.Array, jax.Array],
    attend: Attend,
    mesh: jax.sharding.Mesh | None,
) -> tuple[jax.Array, Any]:
    """One layer on [..., embed]: attention as `attend` computes it, then the gated feed-forward.

    `turn` is cosine and sine for each place of `hidden`. Returns the new hidden states and what `attend` keeps.
    """
    weights = gathered(layer, mesh, hidden.dtype)
    normed = rms_norm(hidden, layer["attention_norm"], config.rms_eps)
    queries, keys, values = _project_heads(normed, weights, config, turn)
    attended, kept = attend(queries, keys, values)
    flat = attended.reshape(*attended.shape[:-2], config.heads * config.head_dim)
    hidden = _pin(hidden + _project(flat, weights, "o"), mesh)
    normed = rms_norm(hidden, layer["mlp_norm"], config.rms_eps)
    gated = jax.nn.silu(_project(normed, weights, "gate")) * _project(normed, weights, "up")
    return _pin(hidden + _project(gated, weights, "down"), mesh), kept


def gathered(layer: Layer, mesh: jax.sharding.Mesh | None, dtype: Any) -> Layer:
    """One layer's weights in the compute dtype, whole over the data axes: cast first, so that half the bytes travel."""
    return {
        name: constrain(weight.astype(dtype), mesh, *tuple(without_fsdp(layer_spec(name)))[1:])
        for name, weight in layer.items()
    }


def rms_norm(hidden: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square norm (https://arxiv.org/abs/1910.07467) over the last axis, in float32 and back."""
    wide = hidden.astype(jnp.float32)
    normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + jnp.float32(eps))
    return normed.astype(hidden.dtype) * jnp.expand_dims(scale.astype(hidden.dtype), tuple(range(hidden.ndim - 1)))


def causal_attention(mask: jax.Array) -> Attend:
    """Attention of whole rows [batch, token, head, head_dim]; keeps the layer's keys and values.

    `mask` [batch, token] is true at real tokens. Attention is causal by place in the row and sees real tokens only, so
    rows may be padded on either side; what comes out at a padded place means nothing.
    """
    length = mask.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    visible = jnp.expand_dims(causal, (0, 1)) & jnp.expand_dims(mask, (1, 2))

    def attend(queries: jax.Array, keys: jax.Array, values: jax.Array) -> tuple[jax.Array, Any]:
        with jax.numpy_dtype_promotion("standard"):  # inside, JAX itself mixes bfloat16 and float32
            attended = jax.nn.dot_product_attention(queries, keys, values, mask=visible)
        return attended, (keys, values)

    return attend


def _project_heads(
    normed: jax.Array, weights: Layer, config: ModelConfig, turn: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def project(name: str, heads: int) -> jax.Array:
        flat = _project(normed, weights, name)
        if config.qkv_bias:
            flat = flat + jnp.expand_dims(weights[f"{name}_bias"], tuple(range(flat.ndim - 1)))
        return flat.reshape(*flat.shape[:-1], heads, config.head_dim)

    queries, keys, values = project("q", config.heads), project("k", config.kv_heads), project("v", config.kv_heads)
    if config.qk_norm:
        queries = rms_norm(queries, weights["q_norm"], config.rms_eps)
        keys = rms_norm(keys, weights["k_norm"], config.rms_eps)
    return rotate(queries, *turn), rotate(keys, *turn), values


def _project(inputs: jax.Array, weights: Layer, name: str) -> jax.Array:
    """A weight, and the adapter beside it where it has one (`trainer.model.lora`)."""
    outputs = matmul(inputs, weights[name])
    if f"{name}_lora_a" in weights:
        outputs = outputs + matmul(matmul(inputs, weights[f"{name}_lora_a"]), weights[f"{name}_lora_b"])
    named: jax.Array = checkpoint_name(outputs, _PRODUCT)
    return named


@jax.custom_vjp
def matmul(inputs: jax.Array, weight: jax.Array) -> jax.Array:
    """[..., in] by [out, in]."""
    return jnp.einsum("...i,oi->...o", inputs, weight)


def _matmul_forward(inputs: jax.Array, weight: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return matmul(inputs, weight), (inputs, weight)


def _matmul_backward(kept: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    inputs, weight = kept
    return jnp.einsum("...o,oi->...i", cotangent, weight), summed_outer(cotangent, inputs, weight.dtype)


matmul.defvjp(_matmul_forward, _matmul_backward)


def _pin(hidden: jax.Array, mesh: jax.sharding.Mesh | None) -> jax.Array:
    return constrain(hidden, mesh, DATA, *(None,) * (hidden.ndim - 1))
