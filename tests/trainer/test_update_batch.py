"""The layout of a training batch: where each row and token goes, and that micro-steps move nothing."""

import re

import jax
import numpy as np
import pytest
from small_step import plan_of

from trainer.contract.batch import BatchPlan
from trainer.mesh import build_mesh
from trainer.update import TrainBatch, TrainRow, build_train_batch, micro_step_order

COLLECTIVES = r" (all-to-all|all-reduce|all-gather|collective-permute|reduce-scatter)(?:-start)?\("


def batch_of(rows: list[TrainRow], plan: BatchPlan) -> TrainBatch:
    mesh = build_mesh(plan, jax.devices()[: plan.devices_per_process])
    return build_train_batch(rows, plan, mesh, pad_id=9, prompt_bucket=3, completion_bucket=4)


def test_prompts_end_and_completions_begin_at_one_place() -> None:
    """Prompts are padded on the left, completions on the right; the mask holds trained completion tokens only."""
    rows = [TrainRow([1, 2], [3, 4, 5], 0.5), TrainRow([6, 7, 8], [1, 2, 3, 4], -1.0, trained=False)]
    batch = batch_of(rows, plan_of(rows=2, group_size=2))
    assert batch.tokens.tolist() == [[[9, 1, 2, 3, 4, 5, 9], [6, 7, 8, 1, 2, 3, 4]]]
    assert batch.valid.tolist() == [[[False, True, True, True, True, True, False], [True] * 7]]
    assert batch.loss_mask.tolist() == [[[True, True, True, False], [False] * 4]]
    assert batch.advantages.tolist() == [[0.5, -1.0]]
    assert batch.old_logprobs is None


def test_a_pad_id_inside_a_row_is_a_token_like_any_other() -> None:
    """Masks come from lengths, never from the pad id."""
    batch = batch_of([TrainRow([9], [9, 9], 1.0)], plan_of(rows=1, group_size=1))
    assert batch.valid.sum() == 3
    assert batch.loss_mask.tolist() == [[[True, True, False, False]]]


@pytest.mark.parametrize(("dp", "fsdp", "tp", "micro_steps"), [(1, 1, 1, 2), (2, 2, 2, 2), (4, 1, 2, 4), (1, 8, 1, 2)])
def test_every_row_stays_with_its_shard(dp: int, fsdp: int, tp: int, micro_steps: int) -> None:
    """Shard s trains on the s-th block of the local rows, over all micro-steps, each row exactly once."""
    rows, shards = 16, dp * fsdp
    plan = plan_of(dp, fsdp, tp, micro_steps, rows=rows)
    batch = batch_of([TrainRow([1], [2], float(place)) for place in range(rows)], plan)
    assert batch.advantages.shape == (micro_steps, rows // micro_steps)
    assert sorted(np.asarray(batch.advantages).ravel()) == list(range(rows))
    devices = build_mesh(plan, jax.devices()[: plan.devices_per_process]).devices.reshape(shards, tp)
    for shard in batch.advantages.addressable_shards:
        number = int(np.argwhere(devices == shard.device)[0, 0])
        block = range(number * rows // shards, (number + 1) * rows // shards)
        assert set(np.asarray(shard.data).ravel()) == set(block)


def test_a_micro_step_is_a_slice_without_communication() -> None:
    """Cutting any micro-step out of the batch on 4 shards × 2 compiles to no collective, and stays on the shards."""
    plan = plan_of(2, 2, 2, 2, rows=16)
    batch = batch_of([TrainRow([1], [2], float(place)) for place in range(16)], plan)
    cut = jax.jit(lambda batch, number: jax.tree.map(lambda leaf: leaf[number], batch))
    assert re.findall(COLLECTIVES, cut.lower(batch, 0).compile().as_text()) == []
    for number in range(2):
        held = cut(batch, number).advantages
        whole = {shard.device: np.asarray(shard.data)[number] for shard in batch.advantages.addressable_shards}
        for shard in held.addressable_shards:
            np.testing.assert_array_equal(shard.data, whole[shard.device])


def test_order_of_a_process_is_of_its_own_rows() -> None:
    """8 rows of one process with 2 shards in 2 micro-steps: each takes half of either shard's block."""
    assert micro_step_order(plan_of(1, 2, 1, 2)).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
