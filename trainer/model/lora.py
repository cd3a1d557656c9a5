"""Low-rank adapters: W x + (alpha / rank) B A x, with W frozen (https://arxiv.org/abs/2106.09685, section 4.1).

Comes in: a frozen model, rank, alpha, target modules. Goes out: adapters, the model with them beside its weights or
merged into them, and PEFT's names for them. Refuses to know: optimizers, runs.

Adapters are a tree like `Params` with layers alone: `q_lora_a` [layer, rank, in], `q_lora_b` [layer, out, rank]. They
are float32 whatever the dtype of the frozen weights, as in PEFT: they are few, and small steps must not be lost.
"""

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trainer.model.checkpoint import LAYERS, layer_tensor
from trainer.model.config import ModelConfig
from trainer.model.decoder import Params
from trainer.model.sharding import param_shapes, shardings_on

MODULES = {LAYERS[name].split(".")[1]: name for name in ("q", "k", "v", "o", "gate", "up", "down")}
"""Hugging Face's name of each module that may have an adapter, and ours."""

PEFT_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Lora:
    """`modules` are Hugging Face's names: q_proj, v_proj."""

    rank: int
    alpha: float
    modules: tuple[str, ...]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def targets(self) -> list[str]:
        """Our names, in the order of the layer."""
        return [name for module, name in MODULES.items() if module in self.modules]

    def parameters(self, config: ModelConfig) -> int:
        """How many numbers are trained."""
        return sum(map(math.prod, adapter_shapes(config, self)["layers"].values()))


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["lora"])
@dataclass(frozen=True, slots=True)
class Frozen:
    """A model that stays as it is, and what kind of adapters are trained beside it."""

    params: Params
    lora: Lora

    def joined(self, adapters: Params) -> Params:
        """One tree for the decoder: adapters beside the weights, B already scaled. Gradients pass through to both."""
        scaled = {
            name: leaf * jnp.float32(self.lora.scale) if name.endswith("_b") else leaf
            for name, leaf in adapters["layers"].items()
        }
        return {**self.params, "layers": {**self.params["layers"], **scaled}}

    def merged(self, adapters: Params) -> Params:
        """W + scale · B A in the place of W, in float32; other weights are the same arrays."""
        layers = dict(self.params["layers"])
        for name in self.lora.targets:
            down, up = adapters["layers"][f"{name}_lora_a"], adapters["layers"][f"{name}_lora_b"]
            add = jax.jit(partial(_add, self.lora.scale), out_shardings=layers[name].sharding)
            layers[name] = add(layers[name], down, up)
        return {**self.params, "layers": layers}


def _add(scale: float, weight: jax.Array, down: jax.Array, up: jax.Array) -> jax.Array:
    change = jnp.einsum("lor,lri->loi", up, down, precision="highest")
    total: jax.Array = weight.astype(jnp.float32) + jnp.float32(scale) * change
    return total


def adapter_shapes(config: ModelConfig, lora: Lora) -> Params:
    shapes = param_shapes(config)["layers"]
    layers = {}
    for name in lora.targets:
        count, outputs, inputs = shapes[name]
        layers[f"{name}_lora_a"] = (count, lora.rank, inputs)
        layers[f"{name}_lora_b"] = (count, outputs, lora.rank)
    return {"layers": layers}


def adapter_shardings(config: ModelConfig, lora: Lora, mesh: Mesh) -> Params:
    """Inputs and outputs lie where those of the adapted weight do; the rank is whole everywhere."""
    return shardings_on(mesh, adapter_shapes(config, lora))


def init_adapters(config: ModelConfig, lora: Lora, seed: int, mesh: Mesh) -> Params:
    """A uniform within 1 / sqrt(in), B zero, as PEFT begins: the model is at first the frozen one, on every mesh."""
    shapes = adapter_shapes(config, lora)["layers"]

    def draw() -> Params:
        keys = jax.random.split(jax.random.key(seed), len(shapes))
        pairs = zip(keys, shapes.items(), strict=True)
        return {"layers": {name: _draw(key, name, shape) for key, (name, shape) in pairs}}

    adapters: Params = jax.jit(draw, out_shardings=adapter_shardings(config, lora, mesh))()
    return adapters


def _draw(key: jax.Array, name: str, shape: tuple[int, ...]) -> jax.Array:
    if name.endswith("_b"):
        return jnp.zeros(shape, jnp.float32)
    bound = 1 / math.sqrt(shape[-1])
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def peft_name(name: str, layer: int) -> str:
    """As PEFT's `save_pretrained` names it: https://huggingface.co/docs/peft/developer_guides/checkpoint."""
    target, _, side = name.rpartition("_lora_")
    module = layer_tensor(target, layer).removesuffix(".weight")
    return f"base_model.model.{module}.lora_{side.upper()}.weight"


def write_peft_config(folder: Path, lora: Lora, base: str, revision: str | None) -> None:
    """`adapter_config.json` for the base model of that name."""
    body = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,
        "target_modules": list(lora.modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
