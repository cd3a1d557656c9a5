"""Adapters: at first nothing changes, then they alone are trained; beside the weights or merged, the model is one."""

import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_step import GRPO, model_of, plan_of
from test_update import rows

from trainer.contract.runner import OptimizerConfig
from trainer.mesh import build_mesh
from trainer.model.config import read_model_config
from trainer.model.decoder import causal_attention, hidden_states
from trainer.model.lora import MODULES, Frozen, Lora, adapter_shapes, init_adapters
from trainer.model.weights import load_params, random_params
from trainer.policy import make_scorer
from trainer.rollout import Rollout
from trainer.trainbatch import TrainBatch, build_train_batch, sizes_of
from trainer.update import TrainState, Update, init_state, make_logprobs, make_optimizer, make_update

EVERYWHERE = Lora(rank=4, alpha=12.0, modules=tuple(MODULES))
MODEL = model_of()


def states(params, config, mesh):
    tokens = jnp.arange(32, dtype=jnp.int32).reshape(4, 8) + 5
    places = jnp.broadcast_to(jnp.arange(8, dtype=jnp.int32)[None], (4, 8))

    def run(params):
        attend = causal_attention(jnp.ones((4, 8), bool))
        return hidden_states(params, config, tokens, places, attend, mesh=mesh, compute_dtype=jnp.float32)

    return np.asarray(jax.jit(run)(params))


def moved(adapters):
    """Adapters as training would leave them: B is no longer zero."""
    return jax.tree.map(
        lambda leaf: leaf + jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape) / 50, adapters
    )


def test_fresh_adapters_change_nothing(oracle: Path, mesh_of) -> None:
    """With B zero the model gives the states of the frozen one, bit for bit, and A is the same on every mesh."""
    config, mesh = read_model_config(oracle), mesh_of(1, 2, 2)
    base = load_params(oracle, config, mesh, jnp.float32)
    adapters = init_adapters(config, EVERYWHERE, 3, mesh)
    joined = Frozen(base, EVERYWHERE).joined(adapters)
    assert np.array_equal(states(joined, config, mesh), states(base, config, mesh))
    alone = init_adapters(config, EVERYWHERE, 3, mesh_of(1, 1, 1))
    assert all(np.array_equal(one, other) for one, other in zip(*map(jax.tree.leaves, (adapters, alone)), strict=True))
    a = np.asarray(adapters["layers"]["down_lora_a"])
    assert 0.9 / np.sqrt(config.intermediate) < np.abs(a).max() <= 1 / np.sqrt(config.intermediate)


def test_beside_the_weights_or_merged_the_model_is_one(oracle: Path, mesh_of) -> None:
    """W x + scale · B A x on a 2,2,2 mesh has the states of the merged weights on one device, to rounding."""
    config, mesh, one = read_model_config(oracle), mesh_of(2, 2, 2), mesh_of(1, 1, 1)
    sides = {}
    for place in (mesh, one):
        frozen = Frozen(load_params(oracle, config, place, jnp.float32), EVERYWHERE)
        sides[place] = frozen, moved(init_adapters(config, EVERYWHERE, 3, place))
    beside = states(sides[mesh][0].joined(sides[mesh][1]), config, mesh)
    frozen, adapters = sides[one]
    np.testing.assert_allclose(beside, states(frozen.merged(adapters), config, one), rtol=2e-4, atol=2e-4)
    assert np.abs(beside - states(frozen.params, config, one)).max() > 0.01


def test_a_weight_without_an_adapter_is_not_copied(oracles: Path, mesh_of) -> None:
    """Merging makes new arrays for the target modules alone, W + alpha / rank · B A in float32 even of bfloat16."""
    folder = oracles / "qwen2-tied"
    config, mesh, lora = read_model_config(folder), mesh_of(1, 1, 1), Lora(2, 8.0, ("v_proj",))
    base = load_params(folder, config, mesh, jnp.bfloat16)
    adapters = moved(init_adapters(config, lora, 0, mesh))
    assert adapters["layers"].keys() == adapter_shapes(config, lora)["layers"].keys() == {"v_lora_a", "v_lora_b"}
    whole = Frozen(base, lora).merged(adapters)
    assert whole["layers"]["q"] is base["layers"]["q"]
    a, b = (np.asarray(adapters["layers"][f"v_lora_{side}"][1], np.float64) for side in "ab")
    expected = np.asarray(base["layers"]["v"][1], np.float64) + 4.0 * b @ a
    assert whole["layers"]["v"].dtype == jnp.float32
    np.testing.assert_allclose(whole["layers"]["v"][1], expected, rtol=1e-5, atol=1e-6)


class Adapted(NamedTuple):
    """An update of adapters for one layout, before its first step."""

    frozen: Frozen
    state: TrainState
    batch: TrainBatch
    update: Update


def adapted_on(dp: int, fsdp: int, tp: int, micro_steps: int) -> Adapted:
    plan = plan_of(dp, fsdp, tp, micro_steps)
    mesh = build_mesh(plan, jax.devices()[: plan.devices_per_process])
    frozen = Frozen(random_params(MODEL, 1, mesh, jnp.float32), EVERYWHERE)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2, weight_decay=0.1), updates=2)
    state = init_state(init_adapters(MODEL, EVERYWHERE, 2, mesh), optimizer, mesh)
    score = make_scorer(MODEL, mesh, temperature=1.0, compute_dtype=jnp.float32, remat="layer")
    algorithm = GRPO.model_copy(update={"beta": 0.5})
    update = make_update(score, mesh, optimizer, state, algorithm=algorithm, longest=6, frozen=frozen)
    lengths = np.array([len(row.completion) for row in rows()])
    sizes = sizes_of(lengths, plan, prompt_bucket=5, limit=6)
    batch = build_train_batch(rows(), plan, mesh, pad_id=0, sizes=sizes)
    batch = batch._replace(reference_logprobs=make_logprobs(score, mesh)(frozen.params, batch))
    return Adapted(frozen, state, batch, update)


def trained_on(dp: int, fsdp: int, tp: int, micro_steps: int) -> tuple[list[float], dict[str, np.ndarray], TrainState]:
    """Gradient norms of two updates, KL to the frozen model included, the adapters after them, and the state."""
    _, state, batch, update = adapted_on(dp, fsdp, tp, micro_steps)
    norms, divergences = [], []
    for _ in range(2):
        state, metrics = update(state, batch)
        norms.append(float(metrics["grad_norm"]))
        divergences.append(float(metrics["kl_reference"]))
    assert divergences[0] == 0.0 < divergences[1]
    return norms, {name: np.array(leaf) for name, leaf in state.params["layers"].items()}, state


@pytest.fixture(scope="module")
def alone() -> tuple[list[float], dict[str, np.ndarray], TrainState]:
    return trained_on(1, 1, 1, 1)


@pytest.mark.parametrize(("dp", "fsdp", "tp", "micro_steps"), [(1, 2, 4, 4), (2, 2, 2, 2)])
def test_every_mesh_trains_the_same_adapters(alone, dp: int, fsdp: int, tp: int, micro_steps: int) -> None:
    """Two updates with a KL term, over data shards, split weights and micro-steps, are those of one device."""
    norms, adapters, _ = trained_on(dp, fsdp, tp, micro_steps)
    assert norms == pytest.approx(alone[0], rel=1e-4)
    for name, leaf in adapters.items():
        np.testing.assert_allclose(leaf, alone[1][name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_the_optimizer_knows_adapters_alone(alone) -> None:
    """Moments exist for the adapters and nothing else, and both sides of each have moved from where they began."""
    _, adapters, state = alone
    shapes = sorted(leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert shapes == sorted(2 * [leaf.shape for leaf in adapters.values()])
    first = init_adapters(MODEL, EVERYWHERE, 2, build_mesh(plan_of(), jax.devices()[:1]))["layers"]
    assert all(np.abs(leaf - np.asarray(first[name])).max() > 1e-3 for name, leaf in adapters.items())


def test_nothing_is_computed_for_the_gradient_of_a_frozen_weight() -> None:
    """Shards add up gradients of the adapters alone: none of the table, which is the head too, crosses the devices."""
    frozen, state, batch, update = adapted_on(2, 1, 1, 1)
    text = update.func.lower(state, batch, frozen=frozen).compile().as_text()
    summed = re.findall(r"= (.*) all-reduce\(", text)
    assert summed
    frozen_shapes = (MODEL.vocab, MODEL.hidden), (MODEL.hidden, MODEL.hidden), (MODEL.intermediate, MODEL.hidden)
    assert not any(f"f32[{rows},{columns}]" in shapes for rows, columns in frozen_shapes for shapes in summed)
    assert "scatter" not in text


def test_the_rollout_samples_with_the_adapters(sampling_of, mesh_of) -> None:
    """On a mesh it gives each token the log-probability that the merged model has for it, and the frozen has not."""
    mesh = mesh_of(2, 1, 2)
    frozen = Frozen(random_params(MODEL, 1, mesh, jnp.float32), EVERYWHERE)
    adapters = moved(init_adapters(MODEL, EVERYWHERE, 2, mesh))
    rollout = Rollout(MODEL, mesh, sampling_of(6), stop_ids=(3,), pad_id=0, compute_dtype=jnp.float32)
    prompts = [[5, 6, 7], [9, 8, 7, 6, 5]]
    done = rollout.generate(frozen.joined(adapters), prompts, range(2), 0, 0, 8, samples=4)
    merged = rollout.generate(frozen.merged(adapters), prompts, range(2), 0, 0, 8, samples=4)
    np.testing.assert_array_equal(done.tokens, merged.tokens)
    np.testing.assert_allclose(done.sampled_logprobs, merged.sampled_logprobs, rtol=1e-3, atol=1e-4)
    plain = rollout.generate(frozen.params, prompts, range(2), 0, 0, 8, samples=4)
    assert np.abs(plain.sampled_logprobs - done.sampled_logprobs).max() > 1e-2
