"""Shares of the machine, against numbers worked by hand for a model small enough to count."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import resolved
from small_step import model_of

from trainer.contract.batch import BatchPlan
from trainer.metricnames import METRICS, metric_of
from trainer.usage import Sizes, Usage, decode_bytes, peaks, update_flops

MODEL = model_of(
    model_type="llama",
    layers=2,
    hidden=8,
    intermediate=16,
    heads=4,
    kv_heads=2,
    head_dim=2,
    vocab=100,
    tied=True,
    qkv_bias=False,
)
BODY = 2 * (8 * 2 * (2 * 4 + 2 * 2) + 2 * 8 + 3 * 8 * 16) + 8
PROMPTS, COMPLETIONS = np.array([3.0, 3.0, 5.0, 5.0]), np.array([4.0, 2.0, 1.0, 6.0])
SIZES = Sizes(PROMPTS, COMPLETIONS)


class Chip:
    """A device of a kind, with what it says of its memory."""

    def __init__(self, kind: str, peak_bytes: int | None) -> None:
        self.device_kind = kind
        self._peak_bytes = peak_bytes

    def memory_stats(self) -> dict[str, Any] | None:
        return None if self._peak_bytes is None else {"peak_bytes_in_use": self._peak_bytes}


def plan(*sets: str) -> BatchPlan:
    """Four sequences in groups of two, on two processes of one device."""
    sizes = ("rollout.batch_size=4", "rollout.num_pre_q=2")
    return resolved(Path("m"), Path("d"), Path("o"), 2, 1, *sizes, *sets).batch


def test_the_work_of_an_update_is_counted_by_weight_and_token() -> None:
    """Six operations a weight and token, a group's prompt once, the head for completions alone, causal attention."""
    seen = (3**2 + 4**2 + 2 * 3 * 4 + 2**2 + 2 * 3 * 2) + (5**2 + 1**2 + 2 * 5 * 1 + 6**2 + 2 * 5 * 6)
    expected = 6 * BODY * (3 + 5 + 13) + 6 * 100 * 8 * 13 + 6 * 2 * 4 * 2 * seen
    assert update_flops(MODEL, 2, PROMPTS, COMPLETIONS) == expected
    untied = dataclasses.replace(MODEL, tied=False)
    assert update_flops(untied, 2, PROMPTS, COMPLETIONS) == expected


def test_the_floor_of_decoding_is_weights_and_cache() -> None:
    """All weights a token after the first of the longest row; a prompt's cache once a group, over the devices."""
    cache = (3 * 4 + 5 * 6) + (16 + 4 + 1 + 36) / 2
    expected = 2 * (MODEL.parameters * 5 + cache * (2 * 2 * 2 * 2) / 2)
    assert decode_bytes(MODEL, plan(), PROMPTS, COMPLETIONS, 2) == expected


def test_padding_is_what_holds_no_token() -> None:
    """In the rollout the places after a row's end up to the longest of its pass; in the update all without a token."""
    row = Usage(MODEL, plan(), "float32", [Chip("cpu", None)]).row(SIZES, SIZES, 64, {})
    assert row == {"padding/rollout": pytest.approx(1 - 13 / 24), "padding/update": pytest.approx(1 - 21 / 64)}


def test_what_was_sampled_and_not_trained_on_is_work_of_the_rollout() -> None:
    """A second pass of rows twice as long counts where tokens are sampled, and not in the padding of the update."""
    twice = Sizes(np.concatenate([PROMPTS, PROMPTS]), np.concatenate([COMPLETIONS, 2 * COMPLETIONS]))
    row = Usage(MODEL, plan(), "float32", [Chip("cpu", None)]).row(twice, SIZES, 64, {})
    assert row == {"padding/rollout": pytest.approx(1 - 39 / 72), "padding/update": pytest.approx(1 - 21 / 64)}


def test_shares_are_told_where_the_peak_is_known() -> None:
    """Work over seconds, devices and peak; memory is the fullest device's; half the width, half the bytes."""
    chips = [Chip("TPU v5 lite", 2**30), Chip("TPU v5 lite", 3 * 2**29)]
    seconds = {"update": 2.0, "rollout": 4.0}
    row = Usage(MODEL, plan(), "bfloat16", chips).row(SIZES, SIZES, 16, seconds)
    flops, read = update_flops(MODEL, 2, PROMPTS, COMPLETIONS), decode_bytes(MODEL, plan(), PROMPTS, COMPLETIONS, 2)
    assert row["throughput/update_mfu"] == pytest.approx(flops / (2.0 * 2 * 197e12))
    assert row["throughput/decode_bandwidth_share"] == pytest.approx(read / (4.0 * 819e9))
    assert row["memory/device_peak_gib"] == 1.5
    assert [name for name in row if metric_of(name) is None] == []


def test_every_peak_is_of_one_device_and_plausible() -> None:
    """Each kind once; between a hundred and two thousand TFLOP/s, and between half and ten TB/s."""
    assert {"TPU v4", "TPU v5 lite", "TPU v5", "TPU v6 lite", "TPU7x", "NVIDIA H100 80GB HBM3"} <= peaks().keys()
    for peak in peaks().values():
        assert 1e14 < peak.flops < 2e15
        assert 5e11 < peak.bandwidth < 1e13


def test_a_metric_stands_in_the_table_once() -> None:
    """No two entries have one name; an exact name comes before a pattern that fits it too."""
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert [name for name in names if metric_of(name).name != name] == []


def test_every_epoch_is_work() -> None:
    """Two updates on a batch are twice the operations of one."""
    seconds = {"update": 2.0, "rollout": 4.0}
    once, twice = (
        Usage(MODEL, plan(), "bfloat16", [Chip("TPU v5 lite", 1)], epochs).row(SIZES, SIZES, 16, seconds)
        for epochs in (1, 2)
    )
    assert twice["throughput/update_mfu"] == pytest.approx(2 * once["throughput/update_mfu"])
