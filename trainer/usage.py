"""What a step used of the machine: lengths and seconds come in, shares of what the devices could do go out.

Work is counted as the model needs it, once: neither padding nor what is computed again for memory's sake is credited.
It refuses to know how the work was done.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.contract.batch import BatchPlan
from trainer.metrics import Row
from trainer.model.config import ModelConfig

_PEAKS = Path(__file__).parent / "data" / "peaks.json"
_GIB = float(2**30)
_BYTES = {"float32": 4, "bfloat16": 2}

Lengths = NDArray[np.float64]


class Sizes(NamedTuple):
    """Tokens of some rows: of their prompts and of their completions, each [row]."""

    prompts: Lengths
    completions: Lengths


class Device(Protocol):
    """What is asked of a JAX device."""

    @property
    def device_kind(self) -> str: ...

    def memory_stats(self) -> dict[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class Peak:
    """Of one device: floating-point operations and bytes a second."""

    flops: float
    bandwidth: float


@cache
def peaks() -> dict[str, Peak]:
    """Device kind → peak, from `data/peaks.json`, where the sources are."""
    devices = json.loads(_PEAKS.read_text(encoding="utf-8"))["devices"]
    return {
        kind: Peak(device["bf16_tflops"] * 1e12, device["gb_per_s"] * 1e9)
        for device in devices
        for kind in device["kinds"]
    }


def update_flops(
    model: ModelConfig, group_size: int, prompts: Lengths, completions: Lengths, adapters: int = 0
) -> float:
    """Forward and backward pass over rows of these lengths: 6 operations a weight and token, and causal attention.

    Source: PaLM, https://arxiv.org/abs/2204.02311 appendix B; the mask halves its attention. The prompt of a group is
    read once for all of it. The head is met by the completion tokens alone, and the table of embeddings is no product.
    Where `adapters`, so many numbers, are trained, the others are frozen, and cost 4 operations: nothing is asked for
    their gradient.
    """
    each = 4.0 if adapters else 6.0
    tables = model.vocab * model.hidden * (1 if model.tied else 2)
    asked = prompts[::group_size]
    tokens = asked.sum() + completions.sum()
    body = (each * (model.parameters - tables) + 6.0 * adapters) * tokens
    head = each * model.vocab * model.hidden * completions.sum()
    seen = (asked**2).sum() + (completions * (2 * prompts + completions)).sum()
    return float(body + head + 6.0 * model.layers * model.heads * model.head_dim * seen)


def decode_bytes(model: ModelConfig, plan: BatchPlan, prompts: Lengths, completions: Lengths, width: int) -> float:
    """The least that one device reads to decode the completions of whole passes, in bytes of `width` a number.

    All weights of its part of the model for every token of the longest row of a pass; the keys and values of each
    prompt once for its group, those of each row as often as it has tokens after them.
    """
    longest = completions.reshape(-1, plan.sequences_per_step // plan.passes).max(axis=1)
    weights = model.parameters / plan.mesh.tp * (longest - 1).sum()
    of_group = completions.reshape(-1, plan.group_size).max(axis=1)
    cached = (prompts[:: plan.group_size] * of_group).sum() + (completions**2).sum() / 2
    a_token = 2 * model.layers * model.kv_heads * model.head_dim
    devices = plan.processes * plan.devices_per_process
    return float(width * (weights + cached * a_token / devices))


@dataclass(frozen=True, slots=True)
class Usage:
    """The gauge of one run. `devices` are this process's; all of a run are of one kind. `epochs` updates a step.

    `adapters` numbers are trained beside the frozen model; 0: the model itself is.
    """

    model: ModelConfig
    plan: BatchPlan
    compute: str
    devices: Sequence[Device]
    epochs: int = 1
    adapters: int = 0

    def row(self, sampled: Sizes, trained: Sizes, computed: int, seconds: Mapping[str, float]) -> Row:
        """Of a step with these rows in its order: all that its passes sampled, and those of the update, which computes
        so many tokens for them.
        """
        of_passes = sampled.completions.reshape(-1, self.plan.sequences_per_step // self.plan.passes)
        asked = float(of_passes.max(axis=1).sum() * of_passes.shape[1])
        held = float(trained.prompts[:: self.plan.group_size].sum() + trained.completions.sum())
        row: Row = {
            "padding/rollout": 1.0 - float(of_passes.sum()) / asked,
            "padding/update": 1.0 - held / computed,
        }
        return row | self._shares(sampled, trained, seconds) | self._memory()

    def _shares(self, sampled: Sizes, trained: Sizes, seconds: Mapping[str, float]) -> Row:
        peak = peaks().get(self.devices[0].device_kind)
        if peak is None:
            return {}
        count = self.plan.processes * self.plan.devices_per_process
        flops = update_flops(self.model, self.plan.group_size, *trained, adapters=self.adapters) * self.epochs
        read = decode_bytes(self.model, self.plan, *sampled, _BYTES[self.compute])
        return {
            "throughput/update_mfu": flops / (seconds["update"] * count * peak.flops),
            "throughput/decode_bandwidth_share": read / (seconds["rollout"] * peak.bandwidth),
        }

    def _memory(self) -> Row:
        told = [stats["peak_bytes_in_use"] for device in self.devices if (stats := device.memory_stats())]
        return {"memory/device_peak_gib": max(told) / _GIB} if told else {}
