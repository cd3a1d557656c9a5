"""The layout of a training batch: where each row and token goes, and that micro-steps move nothing."""

import re

import jax
import numpy as np
import pytest
from small_step import plan_of

from trainer.contract.batch import BatchPlan
from trainer.mesh import build_mesh
from trainer.trainbatch import (
    BatchSizes,
    TrainBatch,
    TrainRow,
    build_train_batch,
    dealt,
    row_order,
    rows_per_block,
    sizes_of,
)

COLLECTIVES = r" (all-to-all|all-reduce|all-gather|collective-permute|reduce-scatter)(?:-start)?\("


def batch_of(rows: list[TrainRow], plan: BatchPlan, places: int) -> TrainBatch:
    mesh = build_mesh(plan, jax.devices()[: plan.devices_per_process])
    sizes = BatchSizes(prompt=3, completion=4, places=places)
    return build_train_batch(rows, plan, mesh, pad_id=9, sizes=sizes)


def test_a_prompt_is_there_once_with_its_rows() -> None:
    """Prompts are padded on the left, completions on the right; only real tokens are picked, and trained rows count."""
    rows = [
        TrainRow([1, 2], [3, 4, 5], 0.5),
        TrainRow([1, 2], [6], -1.0, trained=False),
        TrainRow([6, 7, 8], [1, 2, 3, 4], 2.0),
        TrainRow([6, 7, 8], [5, 5], -2.0),
    ]
    batch = batch_of(rows, plan_of(rows=4, group_size=2), places=12)
    blocks = jax.tree.map(lambda array: np.asarray(array)[0].tolist(), batch.blocks)
    # The longer group comes first.
    assert blocks.prompts == [[6, 7, 8], [9, 1, 2]]
    assert blocks.prompt_lengths == [3, 2]
    assert blocks.completions == [[1, 2, 3, 4], [5, 5, 9, 9], [3, 4, 5, 9], [6, 9, 9, 9]]
    assert blocks.lengths == [4, 2, 3, 1]
    assert blocks.picked == [[0, 1, 2, 3, 4, 5, 8, 9, 10, 12, 16, 16]]
    assert batch.loss_mask.tolist() == [
        [[True] * 4, [True, True, False, False], [True, True, True, False], [False] * 4]
    ]
    assert batch.advantages.tolist() == [[2.0, -2.0, 0.5, -1.0]]
    assert batch.old_logprobs is None


def test_with_room_for_all_tokens_nothing_is_packed() -> None:
    """As many places as padded rows have tokens: each is computed where it stands, padding too."""
    batch = batch_of([TrainRow([1], [2], 1.0)] * 2, plan_of(rows=2, group_size=2), places=8)
    assert batch.blocks.picked.tolist() == [[list(range(8))]]


def test_a_pad_id_inside_a_row_is_a_token_like_any_other() -> None:
    """Masks come from lengths, never from the pad id."""
    batch = batch_of([TrainRow([9], [9, 9], 1.0)], plan_of(rows=1, group_size=1), places=3)
    assert batch.blocks.prompt_lengths.tolist() == [[1]]
    assert batch.blocks.picked.tolist() == [[[0, 1, 4]]]
    assert batch.loss_mask.tolist() == [[[True, True, False, False]]]


def test_a_group_has_one_prompt() -> None:
    """Rows that continue several prompts are no group: the prompt of one would stand for all."""
    with pytest.raises(ValueError, match="one prompt"):
        batch_of([TrainRow([1], [2], 0.0), TrainRow([3], [2], 0.0)], plan_of(rows=2, group_size=2), places=8)


@pytest.mark.parametrize(
    ("dp", "fsdp", "tp", "micro_steps", "block"), [(1, 1, 1, 2, 4), (2, 2, 2, 2, 2), (4, 1, 2, 4, 1), (1, 8, 1, 2, 1)]
)
def test_every_row_is_there_once_beside_its_prompt(dp: int, fsdp: int, tp: int, micro_steps: int, block: int) -> None:
    """A micro-step has whole blocks on every shard: their rows continue the prompt beside them, each row once."""
    plan = plan_of(dp, fsdp, tp, micro_steps, rows=16, group_size=4)
    lengths = np.random.default_rng(1).integers(1, 5, 16)
    rows = [TrainRow([place // 4], [place] * length, float(place)) for place, length in enumerate(lengths)]
    batch = batch_of(rows, plan, places=16 // micro_steps // (dp * fsdp) * 4)
    assert batch.advantages.shape == (micro_steps, 16 // micro_steps)
    assert sorted(np.asarray(batch.advantages).ravel()) == list(range(16))
    assert rows_per_block(plan) == block
    for rows_of, prompts in zip(
        batch.advantages.addressable_shards, batch.blocks.prompts.addressable_shards, strict=True
    ):
        groups = np.asarray(rows_of.data) // 4
        np.testing.assert_array_equal(groups, np.repeat(np.asarray(prompts.data)[..., -1], block, axis=1))


def test_cards_are_dealt_to_and_fro() -> None:
    """Two hands of 9, 7, 5, 4, 3 and 1: the first gets 9, 4 and 3, the second 7, 5 and 1."""
    assert dealt(np.array([1, 9, 5, 7, 3, 4]), 2).tolist() == [[1, 5, 4], [3, 2, 0]]


def test_cells_have_about_as_many_tokens() -> None:
    """Of 64 ragged groups the fullest cell has an eighth more than the mean, and in their own order over a quarter."""
    plan = plan_of(2, 2, 2, 4, rows=512, group_size=8)
    lengths = np.random.default_rng(0).geometric(1 / 100, 512).clip(1, 512)

    def worst(order: np.ndarray) -> float:
        tokens = lengths[order].reshape(16, -1).sum(axis=1)
        return float(tokens.max() / tokens.mean())

    assert worst(row_order(lengths, plan)) < 1.125 < 1.25 < worst(np.arange(512).reshape(4, -1))


def test_sizes_worked_by_hand() -> None:
    """Of two rows' 128 places three quarters hold 80 tokens, and half of them 60; two processes have one size."""
    plan = plan_of(1, 2, 1, 1, rows=4, group_size=2, processes=2)
    for lengths, sizes in [
        ([40, 40, 3, 3], BatchSizes(96, 64, 96)),
        ([3, 3, 40, 40], BatchSizes(96, 64, 96)),
        ([40, 20, 3, 3], BatchSizes(96, 64, 64)),
        ([20, 20, 1, 1], BatchSizes(96, 32, 48)),
        ([33, 1, 1, 1], BatchSizes(96, 64, 48)),
        ([65, 65, 1, 1], BatchSizes(96, 100, 150)),
        ([99, 99, 1, 1], BatchSizes(96, 100, 200)),
    ]:
        assert sizes_of(np.array(lengths), plan, prompt_bucket=96, limit=100) == sizes, lengths
    assert BatchSizes(96, 64, 96).computed(plan) == 2 * 96 + 2 * 96


def test_a_micro_step_is_a_slice_without_communication() -> None:
    """Cutting any micro-step out of the batch on 4 shards × 2 compiles to no collective, and stays on the shards."""
    plan = plan_of(2, 2, 2, 2, rows=16, group_size=16)
    batch = batch_of([TrainRow([1], [2], float(place)) for place in range(16)], plan, places=4)
    cut = jax.jit(lambda batch, number: jax.tree.map(lambda leaf: leaf[number], batch))
    assert re.findall(COLLECTIVES, cut.lower(batch, 0).compile().as_text()) == []
    for number in range(2):
        held = cut(batch, number).advantages
        whole = {shard.device: np.asarray(shard.data)[number] for shard in batch.advantages.addressable_shards}
        for shard in held.addressable_shards:
            np.testing.assert_array_equal(shard.data, whole[shard.device])
