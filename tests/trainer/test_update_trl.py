"""The compiled update on TRL's own batch: its loss, gradient norm and gradient, over eight devices."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_step import plan_of
from trl_cases import algorithm_of

from trainer.mesh import build_mesh, rows_to_global
from trainer.model.config import ModelConfig, read_model_config
from trainer.model.weights import load_params
from trainer.policy import make_scorer
from trainer.trainbatch import BatchSizes, TrainBatch, TrainRow, build_train_batch, row_order
from trainer.update import (
    Optimizer,
    TrainState,
    Update,
    init_state,
    make_logprobs,
    make_update,
)

PLAN = plan_of(2, 2, 2, micro_steps=2)
KEEP_GRADIENTS = Optimizer(
    optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradients, _, params: (jax.tree.map(jnp.zeros_like, params), gradients),
    ),
    lambda update: jnp.float32(1.0),
)


def batch_of(arrays: dict[str, np.ndarray], case: dict[str, Any]) -> TrainBatch:
    lengths = zip(arrays["prompt_mask"].sum(1), arrays["completion_mask"].sum(1), strict=True)
    rows = [
        TrainRow(prompt[-before:].tolist(), completion[:after].tolist(), advantage)
        for prompt, completion, advantage, (before, after) in zip(
            arrays["prompt_ids"], arrays["completion_ids"], arrays["advantages"].tolist(), lengths, strict=True
        )
    ]
    mesh = build_mesh(PLAN)
    # Wider than TRL's 11 and 19: buckets do not show in the numbers.
    batch = build_train_batch(rows, PLAN, mesh, pad_id=0, sizes=BatchSizes(prompt=16, completion=24, places=36))
    compared = {"old_logprobs": "old_per_token_logps"} if case["uses_old"] else {}
    compared |= {"reference_logprobs": "ref_per_token_logps"} if case["beta"] else {}
    order = order_of(arrays)
    padded = {ours: np.pad(arrays[theirs], ((0, 0), (0, 5))).astype(np.float32) for ours, theirs in compared.items()}
    return batch._replace(**{name: rows_to_global(mesh, array[order], row_axis=1) for name, array in padded.items()})


def order_of(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return row_order(arrays["completion_mask"].sum(1).astype(np.int64), PLAN)


def update_of(config: ModelConfig, like: TrainState, case: dict[str, Any], longest: int) -> Update:
    mesh = build_mesh(PLAN)
    score = make_scorer(config, mesh, temperature=1.0, compute_dtype=jnp.float32, remat="layer")
    return make_update(score, mesh, KEEP_GRADIENTS, like, algorithm=algorithm_of(case), longest=longest)


FEW = {
    "grpo-beta0.04-old-token-delta1.5",
    "dapo-beta0.04-old-sequence",
    "dr_grpo-beta0.0-onpolicy-token",
    "cispo-beta0.0-old-token",
}
"""One case at least for each part of an algorithm; `test_losses_trl.py` has all of them, without the mesh."""


@pytest.mark.parametrize(("model", "chosen"), [("qwen2-tied", FEW), ("qwen2-untied", {"dapo-beta0.04-old-token"})])
def test_the_update_meets_trl(oracles: Path, model: str, chosen: set[str]) -> None:
    """Two micro-steps over dp 2, fsdp 2, tp 2: clip, dual clip, GSPO, CISPO, KL, each aggregation, to 1e-5 relative."""
    folder = oracles / model
    description, arrays = json.loads((folder / "losses.json").read_text()), dict(np.load(folder / "losses.npz"))
    cases = [case for case in description["cases"] if case["key"] in chosen]
    assert len(cases) == len(chosen)
    mesh, config = build_mesh(PLAN), read_model_config(folder)
    state = init_state(load_params(folder, config, mesh, jnp.float32), KEEP_GRADIENTS, mesh)
    for case in cases:
        update = update_of(config, state, case, description["max_completion_length"])
        state, metrics = update(state, batch_of(arrays, case))
        assert float(metrics["loss"]) == pytest.approx(case["loss"], rel=1e-5, abs=1e-7), case["key"]
        assert float(metrics["grad_norm"]) == pytest.approx(case["grad_norm"], rel=1e-5), case["key"]
        expected = arrays[f"grad_q_proj_layer0/{case['key']}"]
        difference = np.linalg.norm(state.opt_state["layers"]["q"][0] - expected) / np.linalg.norm(expected)
        assert difference < 1e-5, (case["key"], difference)


def test_log_probabilities_before_the_update_are_those_of_trl(oracles: Path) -> None:
    """Old and reference log-probabilities come from one program over the mesh: TRL's, in the batch's own layout."""
    folder = oracles / "qwen2-tied"
    arrays, mesh, config = dict(np.load(folder / "losses.npz")), build_mesh(PLAN), read_model_config(folder)
    batch = batch_of(arrays, {"uses_old": False, "beta": 0.0})
    params = load_params(folder, config, mesh, jnp.float32)
    score = make_scorer(config, mesh, temperature=1.0, compute_dtype=jnp.float32, remat="none")
    found = make_logprobs(score, mesh)(params, batch)
    assert found.sharding.is_equivalent_to(batch.loss_mask.sharding, found.ndim)
    order = order_of(arrays)
    mask = arrays["completion_mask"][order] > 0
    expected = arrays["per_token_logps"][order]
    np.testing.assert_allclose(np.asarray(found)[..., : mask.shape[-1]][mask], expected[mask], rtol=1e-5)
