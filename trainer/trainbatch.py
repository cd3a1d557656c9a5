"""The batch of one update: this process's completions laid out for its data shards, cut into micro-steps.

In: rows with prompts, completions and advantages. Out: `TrainBatch`, global arrays. It refuses to know what a reward
was, and what is done with the batch.

A cell is what one shard computes in one micro-step. It has whole blocks, rows of one prompt, which is computed once for
all of them (`trainer.model.blocks`).
"""

from collections.abc import Sequence
from functools import partial
from math import gcd
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from trainer.contract.batch import BatchPlan
from trainer.mesh import rows_to_global
from trainer.model.blocks import Blocks

SMALLEST_WIDTH = 32


class TrainRow(NamedTuple):
    """One completion: token ids (with the stop token, if it ended), advantage, and whether its tokens enter the loss.

    A prompt has at least one token: the first completion token is predicted from its last. `rollout_logprobs` are the
    completion tokens' where they were sampled; all rows of a batch have them, or none.
    """

    prompt: Sequence[int]
    completion: Sequence[int]
    advantage: float
    trained: bool = True
    rollout_logprobs: np.ndarray | None = None


class TrainBatch(NamedTuple):
    """One training step's rows, as global arrays [micro_step, ...] with blocks, rows and shards over the data shards.

    `loss_mask` (bool) [micro_step, row, completion token] marks the tokens that are trained on. `old_logprobs`
    (float32), shaped like it, are those of the policy that the ratio is taken to; None: of this one.
    `reference_logprobs`, likewise, are those of the frozen model that a KL term keeps the policy near;
    `rollout_logprobs` those that the program which sampled gave, to be compared with this one's.
    """

    blocks: Blocks
    loss_mask: jax.Array
    advantages: jax.Array
    old_logprobs: jax.Array | None = None
    reference_logprobs: jax.Array | None = None
    rollout_logprobs: jax.Array | None = None


class BatchSizes(NamedTuple):
    """The static shape of a batch: tokens of a padded prompt and completion, and a cell's places for real tokens."""

    prompt: int
    completion: int
    places: int

    def computed(self, plan: BatchPlan) -> int:
        """Token places that one update computes, over all processes."""
        cells = plan.processes * _shards(plan) * plan.micro_steps
        blocks = plan.sequences_per_step // rows_per_block(plan)
        return blocks * self.prompt + cells * self.places


def sizes_of(lengths: NDArray[np.int64], plan: BatchPlan, *, prompt_bucket: int, limit: int) -> BatchSizes:
    """The sizes for completions of these `lengths` [row of the step], of which none is longer than `limit`.

    All processes know all lengths, and so agree without asking. A completion's width doubles, and the places are a
    half, three quarters or all of what that leaves room for, or of a half of it, and so on: every size is compiled
    once, so there are few.
    """
    width = SMALLEST_WIDTH
    while width < lengths.max():
        width *= 2
    width = min(width, limit)
    of_process = lengths.reshape(plan.passes, plan.processes, -1).swapaxes(0, 1).reshape(plan.processes, -1)
    cells = plan.micro_steps * _shards(plan)
    needed = max(int(mine[row_order(mine, plan)].reshape(cells, -1).sum(axis=1).max()) for mine in of_process)
    whole = plan.sequences_per_process // cells * width
    while needed <= whole // 2:
        whole //= 2
    three_quarters = -(-3 * whole // 4)
    return BatchSizes(prompt_bucket, width, three_quarters if needed <= three_quarters else whole)


def _shards(plan: BatchPlan) -> int:
    """Data shards of one process."""
    return plan.devices_per_process // plan.mesh.tp


def rows_per_block(plan: BatchPlan) -> int:
    """The most rows of one prompt that every cell can have all of its rows in."""
    return gcd(plan.group_size, plan.sequences_per_micro_step // _shards(plan))


def row_order(lengths: NDArray[np.int64], plan: BatchPlan) -> NDArray[np.int64]:
    """[micro_step, row of the micro-step] -> place of the row in its process's local order.

    Rows are dealt so that all cells have about as many tokens: those of a group to its blocks, and the blocks to the
    cells of the process. `lengths` [row] are those of the local rows, groups beside each other.
    """
    size, cells = rows_per_block(plan), plan.micro_steps * _shards(plan)
    groups = lengths.reshape(-1, plan.group_size)
    blocks = [number * plan.group_size + dealt(group, plan.group_size // size) for number, group in enumerate(groups)]
    rows_of_block = np.concatenate(blocks)
    blocks_of_cell = dealt(lengths[rows_of_block].sum(axis=1), cells)
    return rows_of_block[blocks_of_cell].reshape(plan.micro_steps, -1)


def dealt(sizes: NDArray[np.int64], hands: int) -> NDArray[np.int64]:
    """[hand, card] -> number of the card: the largest first, to and fro, as many to every hand."""
    rounds = np.argsort(-sizes, kind="stable").reshape(-1, hands)
    rounds[1::2] = rounds[1::2, ::-1]
    return rounds.T


def build_train_batch(
    rows: Sequence[TrainRow], plan: BatchPlan, mesh: Mesh, *, pad_id: int, sizes: BatchSizes
) -> TrainBatch:
    """Lay this process's `rows` (`plan.sequences_per_process`, in local order) out for its data shards.

    A micro-step is a slice that moves nothing. `sizes` are the same on every process, and large enough. Raises
    ValueError where rows of one group have several prompts.
    """
    if any(row.prompt != rows[at - at % plan.group_size].prompt for at, row in enumerate(rows)):
        raise ValueError("the rows of a group continue one prompt")
    order = row_order(np.array([len(row.completion) for row in rows]), plan)
    leaders = order[:, :: rows_per_block(plan)]
    backwards, prompt_lengths = _padded([row.prompt[::-1] for row in rows], sizes.prompt, pad_id)
    completions, lengths = _padded([row.completion for row in rows], sizes.completion, pad_id)
    real = np.arange(sizes.completion) < lengths[:, None]
    trained = np.array([row.trained for row in rows])
    advantages = np.array([row.advantage for row in rows], np.float32)
    sampled = _rollout_logprobs(rows, sizes.completion)
    place = partial(rows_to_global, mesh, row_axis=1)
    return TrainBatch(
        Blocks(
            place(backwards[leaders][..., ::-1]),
            place(prompt_lengths[leaders]),
            place(completions[order]),
            place(lengths[order]),
            place(_picked(real[order], plan, sizes)),
        ),
        place((real & trained[:, None])[order]),
        place(advantages[order]),
        rollout_logprobs=None if sampled is None else place(sampled[order]),
    )


def _padded(lines: Sequence[Sequence[int]], width: int, pad_id: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """[line, token] padded on the right, and [line]: its length."""
    tokens = np.full((len(lines), width), pad_id, np.int32)
    for number, line in enumerate(lines):
        tokens[number, : len(line)] = line
    return tokens, np.array([len(line) for line in lines], np.int32)


def _picked(real: NDArray[np.bool_], plan: BatchPlan, sizes: BatchSizes) -> NDArray[np.int32]:
    """`Blocks.picked`, [micro_step, shard, place], of `real` [micro_step, row, token]."""
    cells = real.reshape(plan.micro_steps * _shards(plan), -1)
    picked = np.full((len(cells), sizes.places), cells.shape[1], np.int32)
    if sizes.places == cells.shape[1]:
        picked[:] = np.arange(sizes.places)
    else:
        for place, cell in zip(picked, cells, strict=True):
            found = np.flatnonzero(cell)
            place[: len(found)] = found
    return picked.reshape(plan.micro_steps, -1, sizes.places)


def _rollout_logprobs(rows: Sequence[TrainRow], width: int) -> NDArray[np.float32] | None:
    """Float32 [row, width], 0 after each completion; None where a row has none."""
    logprobs = np.zeros((len(rows), width), np.float32)
    for place, row in enumerate(rows):
        if row.rollout_logprobs is None:
            return None
        logprobs[place, : len(row.completion)] = row.rollout_logprobs
    return logprobs
