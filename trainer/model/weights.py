"""Parameters on the mesh from birth: read from safetensors, or drawn at random.

Comes in: a Hugging Face folder or a seed. Goes out: `Params`, each weight sharded as `sharding.param_shardings` says.
Refuses to know: optimizers, runs, and how they are written back (`saving`). No torch: safetensors are read as numpy.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from trainer.model.checkpoint import TABLES, Checkpoint, layer_tensor
from trainer.model.config import ModelConfig
from trainer.model.decoder import Params
from trainer.model.sharding import param_shapes, param_shardings

Index = tuple[slice, ...]
Read = Callable[[Index], np.ndarray]


def load_params(folder: Path | str, config: ModelConfig, mesh: Mesh, dtype: Any) -> Params:
    """Read a checkpoint's weights, cast to `dtype`; each process reads only what its devices hold.

    Raises UnsupportedModelError, before anything is placed, where a tensor is missing or not of the shape that `config`
    gives it.
    """
    checkpoint = Checkpoint(folder)
    shapes, shardings = param_shapes(config), param_shardings(config, mesh)
    _check(checkpoint, shapes)
    params: Params = {
        name: _place(shape, shardings[name], dtype, partial(checkpoint.read, TABLES[name]))
        for name, shape in shapes.items()
        if name != "layers"
    }
    params["layers"] = {
        name: _place(shape, shardings["layers"][name], dtype, _read_stacked(checkpoint, name, config.layers))
        for name, shape in shapes["layers"].items()
    }
    return params


def random_params(config: ModelConfig, seed: int, mesh: Mesh, dtype: Any) -> Params:
    """Weights for training from scratch, the same on every mesh.

    Normal with deviation 1 / sqrt(in), divided by sqrt(2 · layers) where a layer adds to the residual stream (GPT-2);
    embeddings 0.02; norms one; biases zero.
    """
    shapes, tree = jax.tree.flatten_with_path(param_shapes(config), is_leaf=lambda node: isinstance(node, tuple))

    def build() -> Params:
        keys = jax.random.split(jax.random.key(seed), len(shapes))
        drawn = [_draw(key, path[-1].key, shape, config) for key, (path, shape) in zip(keys, shapes, strict=True)]
        params: Params = jax.tree.unflatten(tree, [leaf.astype(dtype) for leaf in drawn])
        return params

    params: Params = jax.jit(build, out_shardings=param_shardings(config, mesh))()
    return params


def _check(checkpoint: Checkpoint, shapes: dict[str, Any]) -> None:
    for name, shape in shapes.items():
        if name != "layers":
            checkpoint.check(TABLES[name], shape)
    for name, (layers, *shape) in shapes["layers"].items():
        for layer in range(layers):
            checkpoint.check(layer_tensor(name, layer), tuple(shape))


def _place(shape: tuple[int, ...], sharding: NamedSharding, dtype: Any, read: Read) -> jax.Array:
    """Each distinct slice is read and cast once, however many devices hold it."""
    cache: dict[str, np.ndarray] = {}

    def slice_of(index: Any) -> np.ndarray:
        key = str(index)
        if key not in cache:
            cache[key] = read(index).astype(dtype)
        return cache[key]

    placed: jax.Array = jax.make_array_from_callback(shape, sharding, slice_of, dtype=dtype)
    return placed


def _read_stacked(checkpoint: Checkpoint, name: str, layers: int) -> Read:
    def read(index: Index) -> np.ndarray:
        _, *rest = index  # no layout splits the layer axis
        return np.stack([checkpoint.read(layer_tensor(name, layer), tuple(rest)) for layer in range(layers)])

    return read


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
