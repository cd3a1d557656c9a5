"""Where each weight and activation lives on the mesh `dp, fsdp, tp`.

Comes in: a ModelConfig and a mesh. Goes out: one PartitionSpec or NamedSharding a weight, and constraints for
activations. Refuses to know: how the mesh was chosen.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trainer.model.config import ModelConfig

DATA = ("dp", "fsdp")
"""The axes over which rows of a batch are spread."""


def param_shapes(config: ModelConfig) -> dict[str, Any]:
    """The shape of every weight, in the tree of `Params`. Matrices are [layer, out, in], as in the checkpoint."""
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layers: dict[str, tuple[int, ...]] = {
        "attention_norm": (config.hidden,),
        "q": (queries, config.hidden),
        "k": (keys, config.hidden),
        "v": (keys, config.hidden),
        "o": (config.hidden, queries),
        "mlp_norm": (config.hidden,),
        "gate": (config.intermediate, config.hidden),
        "up": (config.intermediate, config.hidden),
        "down": (config.hidden, config.intermediate),
    }
    if config.qkv_bias:
        layers |= {"q_bias": (queries,), "k_bias": (keys,), "v_bias": (keys,)}
    if config.qk_norm:
        layers |= {"q_norm": (config.head_dim,), "k_norm": (config.head_dim,)}
    shapes: dict[str, Any] = {
        "embed": (config.vocab, config.hidden),
        "layers": {name: (config.layers, *shape) for name, shape in layers.items()},
        "final_norm": (config.hidden,),
    }
    return shapes if config.tied else shapes | {"head": (config.vocab, config.hidden)}


OUTPUTS_OVER_TP = ("q", "k", "v", "gate", "up")
INPUTS_OVER_TP = ("o", "down")
BIASES = ("q_bias", "k_bias", "v_bias")


def layer_spec(name: str) -> PartitionSpec:
    """The PartitionSpec of a layer's stacked weight, or of an adapter's side (`q_lora_a`, `q_lora_b`)."""
    target, _, side = name.rpartition("_lora_")
    if target:
        _, outputs, inputs = layer_spec(target)
        return PartitionSpec(None, None, inputs) if side == "a" else PartitionSpec(None, outputs, None)
    if name in OUTPUTS_OVER_TP:
        return PartitionSpec(None, "tp", "fsdp")
    if name in INPUTS_OVER_TP:
        return PartitionSpec(None, "fsdp", "tp")
    return PartitionSpec(None, "tp") if name in BIASES else PartitionSpec()


def param_specs(params: dict[str, Any]) -> dict[str, Any]:
    """A PartitionSpec for every name in a tree of weights or adapters: tp over heads, feed-forward and vocabulary, fsdp
    over the other side.
    """
    whole, table = PartitionSpec(), PartitionSpec("tp", "fsdp")
    specs: dict[str, Any] = {name: whole if name == "final_norm" else table for name in params if name != "layers"}
    return specs | {"layers": {name: layer_spec(name) for name in params["layers"]}}


def shardings_on(mesh: Mesh, shapes: dict[str, Any]) -> dict[str, Any]:
    """`param_specs` on a mesh, without the axes that do not divide their dimension (a vocabulary of 49153, tp 2)."""
    shardings: dict[str, Any] = jax.tree.map(
        lambda shape, spec: NamedSharding(mesh, spec_on(mesh, shape, *spec)),
        shapes,
        param_specs(shapes),
        is_leaf=lambda node: isinstance(node, tuple),
    )
    return shardings


def param_shardings(config: ModelConfig, mesh: Mesh) -> dict[str, Any]:
    """Where each weight of a model lives."""
    return shardings_on(mesh, param_shapes(config))


def without_fsdp(spec: PartitionSpec) -> PartitionSpec:
    """Where a weight lives while it is used: whole over the data axes, split over tp."""
    return PartitionSpec(*(axis if axis == "tp" else None for axis in spec))


def constrain(array: jax.Array, mesh: Mesh | None, *axes: str | tuple[str, ...] | None) -> jax.Array:
    """Pin an activation's layout, one entry a dimension, less the axes that do not divide it. No mesh, no change."""
    if mesh is None:
        return array
    sharding = NamedSharding(mesh, spec_on(mesh, array.shape, *axes))
    pinned: jax.Array = jax.lax.with_sharding_constraint(array, sharding)
    return pinned


def spec_on(mesh: Mesh, shape: tuple[int, ...], *axes: str | tuple[str, ...] | None) -> PartitionSpec:
    """A PartitionSpec for an array of this shape, less the axes that do not divide their dimension."""
    return PartitionSpec(
        *(axis if size % _extent(axis, mesh) == 0 else None for size, axis in zip(shape, axes, strict=False))
    )


def _extent(axis: str | tuple[str, ...] | None, mesh: Mesh) -> int:
    names = (axis,) if isinstance(axis, str) else (axis or ())
    extent = 1
    for name in names:
        extent *= mesh.shape[name]
    return extent
