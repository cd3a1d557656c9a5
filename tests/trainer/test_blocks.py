"""Rows computed in blocks behind a shared prompt are what they are row by row."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_step import plan_of

from trainer.arrays.logprobs import token_logprobs
from trainer.mesh import build_mesh
from trainer.model.config import read_model_config
from trainer.model.decoder import causal_attention, head, hidden_states
from trainer.model.weights import load_params
from trainer.policy import make_scorer
from trainer.trainbatch import BatchSizes, TrainRow, build_train_batch, row_order

PLAN = plan_of(2, 1, 2, rows=8, group_size=4)
PROMPT, COMPLETION = 7, 9
LENGTHS = np.array([9, 1, 5, 2, 3, 8, 1, 1])


def rows(vocab: int) -> list[TrainRow]:
    draw = np.random.default_rng(7)
    prompts = [draw.integers(3, vocab, length).tolist() for length in (3, PROMPT)]
    return [TrainRow(prompts[row // 4], draw.integers(3, vocab, LENGTHS[row]).tolist(), 0.0) for row in range(8)]


@pytest.mark.parametrize("places", [27, 4 * COMPLETION])
def test_blocks_are_rows(oracle: Path, places: int) -> None:
    """Log-probabilities, and the gradient of any weighing of them, to 1e-5: packed or not, over dp 2 and tp 2."""
    mesh, config = build_mesh(PLAN, jax.devices()[:4]), read_model_config(oracle)
    params = load_params(oracle, config, mesh, jnp.float32)
    given, order = rows(config.vocab), row_order(LENGTHS, PLAN)[0]
    batch = build_train_batch(given, PLAN, mesh, pad_id=0, sizes=BatchSizes(PROMPT, COMPLETION, places))
    blocks = jax.tree.map(lambda leaf: leaf[0], batch.blocks)
    weights = jax.random.normal(jax.random.key(1), (8, COMPLETION))
    score = make_scorer(config, mesh, temperature=0.7, compute_dtype=jnp.float32, remat="layer")

    tokens, valid = np.zeros((8, PROMPT + COMPLETION), np.int32), np.zeros((8, PROMPT + COMPLETION), bool)
    for place, row in enumerate(given):
        span = slice(PROMPT - len(row.prompt), PROMPT + len(row.completion))
        tokens[place, span], valid[place, span] = row.prompt + row.completion, True
    positions = np.maximum(np.cumsum(valid, axis=1, dtype=np.int32) - 1, 0)
    real = valid[:, PROMPT:]

    def by_rows(params: dict) -> tuple[jax.Array, jax.Array]:
        attend = causal_attention(jnp.asarray(valid))
        hidden = hidden_states(
            params, config, jnp.asarray(tokens), positions, attend, mesh=None, compute_dtype=jnp.float32
        )
        found = token_logprobs(hidden[:, PROMPT - 1 : -1], head(params), tokens[:, PROMPT:], temperature=0.7, chunk=9)[
            0
        ]
        return (jnp.where(real, found, 0.0) * weights).sum(), found

    def by_blocks(params: dict) -> tuple[jax.Array, jax.Array]:
        found = score(params, blocks)[0]
        return (found * weights[order]).sum(), found

    (_, expected), gradient = jax.jit(jax.value_and_grad(by_rows, has_aux=True))(params)
    (_, found), ours = jax.jit(jax.value_and_grad(by_blocks, has_aux=True))(params)
    np.testing.assert_allclose(np.asarray(found)[real[order]], np.asarray(expected)[order][real[order]], rtol=1e-5)
    assert not np.asarray(found)[~real[order]].any()
    for (path, leaf), mine in zip(jax.tree.leaves_with_path(gradient), jax.tree.leaves(ours), strict=True):
        difference = np.linalg.norm(np.asarray(mine) - np.asarray(leaf)) / np.linalg.norm(leaf)
        assert difference < 1e-5, (jax.tree_util.keystr(path), difference)
