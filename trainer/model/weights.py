"""Parameters on the mesh from birth: read from safetensors, drawn at random, or written back.

Comes in: a Hugging Face folder or a seed. Goes out: `Params`, each weight sharded as `sharding.param_shardings` says.
Refuses to know: optimizers, runs. No torch: safetensors are read and written as numpy.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trainer.model.config import ModelConfig
from trainer.model.decoder import Params
from trainer.model.sharding import param_shapes, param_shardings


def random_params(config: ModelConfig, seed: int, mesh: Mesh, dtype: Any) -> Params:
    """Weights for training from scratch, the same on every mesh.

    Normal with deviation 1 / sqrt(in), divided by sqrt(2 · layers) where a layer adds to the residual stream (GPT-2);
    embeddings 0.02; norms one; biases zero.
    """

    def build() -> Params:
        shapes = jax.tree_util.tree_leaves_with_path(param_shapes(config), is_leaf=lambda node: isinstance(node, tuple))
        key = jax.random.key(seed)
        leaves = [
            _draw(jax.random.fold_in(key, i), path[-1].key, shape, config) for i, (path, shape) in enumerate(shapes)
        ]
        tree = jax.tree.structure(param_shardings(config, mesh))
        params: Params = jax.tree.unflatten(tree, [leaf.astype(dtype) for leaf in leaves])
        return params

    params: Params = jax.jit(build, out_shardings=param_shardings(config, mesh))()
    return params


def _draw(key: jax.Array, name: str, shape: tuple[int, ...], config: ModelConfig) -> jax.Array:
    if name.endswith("norm"):
        return jnp.ones(shape, jnp.float32)
    if name.endswith("bias"):
        return jnp.zeros(shape, jnp.float32)
    scale = 0.02 if name in ("embed", "head") else 1 / math.sqrt(shape[-1])
    if name in ("o", "down"):
        scale /= math.sqrt(2 * config.layers)
    drawn: jax.Array = jax.random.normal(key, shape, jnp.float32) * jnp.float32(scale)
    return drawn
