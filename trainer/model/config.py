"""What a checkpoint's `config.json` says about the decoder, and its refusal in words where we cannot run it.

Comes in: a Hugging Face folder. Goes out: `ModelConfig`, all that `decoder` needs. Refuses to know: weights, devices.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
SUPPORTED = "qwen2 (Qwen2 and Qwen2.5), qwen3 (dense) and llama"
DEFAULT_ROPE_THETA = 10000.0


class UnsupportedModelError(ValueError):
    """The checkpoint is readable, but is not one this decoder computes exactly. The text names path, value and fix."""


@dataclass(frozen=True, slots=True)
class Llama3Rope:
    """Llama 3.1's stretched rotary frequencies (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A dense decoder: pre-norm, rotary positions, grouped queries, gated SiLU.

    `head_dim` stands apart from hidden / heads (Qwen3). `eos_ids` are all ids that end a completion, from
    generation_config.json before config.json; empty where neither names one.
    """

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    rope_theta: float
    rms_eps: float
    tied: bool
    qkv_bias: bool
    qk_norm: bool
    eos_ids: tuple[int, ...] = ()
    rope_scaling: Llama3Rope | None = None

    @property
    def parameters(self) -> int:
        """Number of weights, a tied head counted once."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) if self.qkv_bias else 0
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        layer = attention + biases + norms + 3 * self.hidden * self.intermediate
        tables = self.vocab * self.hidden * (1 if self.tied else 2)
        return self.layers * layer + tables + self.hidden


def read_model_config(folder: Path | str) -> ModelConfig:
    """Read `config.json` and, where there is one, `generation_config.json` of a local folder.

    Raises FileNotFoundError without a config.json, UnsupportedModelError where the decoder would not be exact.
    """
    path = Path(folder) / "config.json"
    raw = read_json(path)
    generation = Path(folder) / "generation_config.json"
    ends = read_json(generation).get("eos_token_id") if generation.exists() else None
    try:
        return _parse(raw, _ids(raw.get("eos_token_id") if ends is None else ends))
    except KeyError as error:
        raise UnsupportedModelError(f"{path}: {error.args[0]} is missing; a model's config.json must name it") from None
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from None


def write_model_config(config: ModelConfig, folder: Path | str, *, pad_id: int | None = None) -> None:
    """Write `config.json` and `generation_config.json`: what `read_model_config` reads, and transformers too."""
    ends: dict[str, Any] = {"eos_token_id": list(config.eos_ids) or None, "pad_token_id": pad_id}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if scaling := config.rope_scaling:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_positions,
        }
    raw = {
        "architectures": [ARCHITECTURES[config.model_type]],
        "model_type": config.model_type,
        "num_hidden_layers": config.layers,
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab,
        "max_position_embeddings": config.max_positions,
        "rope_parameters": rope,
        "rms_norm_eps": config.rms_eps,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": False,
    } | ends
    (Path(folder) / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    (Path(folder) / "generation_config.json").write_text(json.dumps(ends, indent=2) + "\n", encoding="utf-8")


def _parse(raw: Mapping[str, Any], eos_ids: tuple[int, ...]) -> ModelConfig:
    model_type = raw.get("model_type")
    if model_type not in ARCHITECTURES:
        raise UnsupportedModelError(f"model_type {model_type!r} is not supported; use a {SUPPORTED} checkpoint")
    _refuse_variants(raw)
    heads, hidden = raw["num_attention_heads"], raw["hidden_size"]
    kv_heads = raw.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise UnsupportedModelError(f"num_attention_heads {heads} must be a multiple of num_key_value_heads {kv_heads}")
    theta, scaling = _rope(raw)
    return ModelConfig(
        model_type=model_type,
        layers=raw["num_hidden_layers"],
        hidden=hidden,
        intermediate=raw["intermediate_size"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=raw.get("head_dim") or (128 if model_type == "qwen3" else hidden // heads),
        vocab=raw["vocab_size"],
        max_positions=raw["max_position_embeddings"],
        rope_theta=theta,
        rms_eps=float(raw.get("rms_norm_eps", 1e-6)),
        tied=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=model_type == "qwen2",
        qk_norm=model_type == "qwen3",
        eos_ids=eos_ids,
        rope_scaling=scaling,
    )


def _refuse_variants(raw: Mapping[str, Any]) -> None:
    """Settings under which transformers computes something this decoder does not."""
    wanted: dict[str, tuple[Any, ...]] = {
        "hidden_act": ("silu",),
        "attention_bias": (False, None),
        "mlp_bias": (False, None),
        "use_sliding_window": (False, None),
        "quantization_config": (None,),
    }
    for key, allowed in wanted.items():
        if key in raw and raw[key] not in allowed:
            raise UnsupportedModelError(f"{key} {raw[key]!r} is not supported; use a checkpoint with {allowed[0]!r}")


def _rope(raw: Mapping[str, Any]) -> tuple[float, Llama3Rope | None]:
    """Base and scaling, from transformers 5's `rope_parameters` or the older `rope_theta` with `rope_scaling`."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or raw.get("rope_theta") or DEFAULT_ROPE_THETA)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    partial = rope.get("partial_rotary_factor") or raw.get("partial_rotary_factor") or 1.0
    if not math.isclose(partial, 1.0):
        raise UnsupportedModelError(f"partial_rotary_factor {partial} is not supported; use a checkpoint with 1.0")
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise UnsupportedModelError(f"rope_type {kind!r} is not supported; use a checkpoint with 'default' or 'llama3'")
    return theta, Llama3Rope(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_max_positions=rope["original_max_position_embeddings"],
    )


def _ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object of a checkpoint's folder; raises UnsupportedModelError with the path where it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UnsupportedModelError(f"{path}: is not JSON ({error}); download the checkpoint again") from None
    if not isinstance(value, dict):
        raise UnsupportedModelError(f"{path}: must hold one JSON object; download the checkpoint again")
    return value
