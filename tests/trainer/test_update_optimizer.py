"""Schedules and optimizers: the rate of each update, and the first step of each rule by hand."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from small_step import model_of

from trainer.contract.runner import OptimizerConfig
from trainer.model.weights import random_params
from trainer.update import init_state, make_optimizer

RATE = 0.5


def tree_of(value: float) -> dict[str, Any]:
    """A model of one layer: two matrices and two vectors, every element `value`; the layer's are stacked."""
    layers = {"up": jnp.full((1, 8, 2), value), "attention_norm": jnp.full((1, 2), value)}
    return {"embed": jnp.full((8, 2), value), "final_norm": jnp.full((2,), value), "layers": layers}


def rates(config: OptimizerConfig, updates: int) -> list[float]:
    optimizer = make_optimizer(config, updates)
    return [float(optimizer.learning_rate(jnp.int32(update))) for update in range(updates)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
    ],
)
def test_warmup_then_decay_over_the_updates_of_the_run(schedule: str, expected: list[float]) -> None:
    """Six updates, two of them warm-up: half the rate, the rate, then the decay over the other four."""
    config = OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup_steps=2)
    np.testing.assert_allclose(rates(config, 6), expected, rtol=1e-6)


@given(
    schedule=st.sampled_from(["constant", "linear", "cosine"]), warmup=st.integers(0, 12), updates=st.integers(1, 10)
)
def test_no_update_has_a_rate_of_zero(schedule: str, warmup: int, updates: int) -> None:
    """From the first to the last update the rate is above 0 and at most the configured one."""
    found = rates(OptimizerConfig(learning_rate=0.25, schedule=schedule, warmup_steps=warmup), updates)
    assert all(0 < rate <= 0.25 for rate in found)


def first_changes(gradient: float, **config: Any) -> tuple[float, float]:
    """What the first update adds to an element of a matrix and of a vector that are 2, in embedding and layer alike."""
    optimizer = make_optimizer(OptimizerConfig(learning_rate=RATE, **config), updates=3)
    params = tree_of(2.0)
    with jax.numpy_dtype_promotion("standard"):
        changes, _ = optimizer.transform.update(tree_of(gradient), optimizer.transform.init(params), params)
    matrices = np.unique([*changes["embed"].ravel(), *changes["layers"]["up"].ravel()])
    vectors = np.unique([*changes["final_norm"].ravel(), *changes["layers"]["attention_norm"].ravel()])
    assert len(matrices) == len(vectors) == 1
    return float(matrices[0]), float(vectors[0])


@pytest.mark.parametrize(("name", "step"), [("adamw", 1.0), ("lion", 1.0), ("sgd", 3.0)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_first_update_of_each_rule(name: str, step: float, decay: float) -> None:
    """Adam and Lion go by the gradient's sign, SGD by its size; decay pulls at matrices, not at norms and biases."""
    matrix, vector = first_changes(3.0, name=name, weight_decay=decay, clip_norm=0.0)
    assert matrix == pytest.approx(-RATE * (step + decay * 2.0), rel=1e-5)
    assert vector == pytest.approx(-RATE * step, rel=1e-5)


def test_clipping_is_by_the_norm_of_the_whole_gradient() -> None:
    """36 elements of 3 have norm 18: clipped to 9, each is 1.5."""
    assert first_changes(3.0, name="sgd", clip_norm=9.0)[0] == pytest.approx(-RATE * 1.5)
    assert first_changes(3.0, name="sgd", clip_norm=100.0)[0] == pytest.approx(-RATE * 3.0)


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd"])
def test_moments_are_split_like_their_parameters(name: str, mesh_of: Callable[..., Any]) -> None:
    """Every moment lies where its parameter lies, and what belongs to no parameter lies everywhere."""
    mesh = mesh_of(1, 4, 2)
    split, whole = NamedSharding(mesh, PartitionSpec("fsdp", "tp")), NamedSharding(mesh, PartitionSpec())
    params = jax.device_put(tree_of(1.0), whole) | {"embed": jax.device_put(jnp.ones((8, 2)), split)}
    state = init_state(params, make_optimizer(OptimizerConfig(name=name), updates=3), mesh)
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == (8, 2)]
    assert len(moments) == {"adamw": 2, "lion": 1, "sgd": 0}[name]
    assert all(moment.sharding == split for moment in moments)
    others = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape != (8, 2)]
    assert all(leaf.sharding.is_equivalent_to(whole, leaf.ndim) for leaf in [*others, state.step])


def test_the_state_is_born_split(mesh_of, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments and master come from programs that hold an eighth of them on each of eight devices, and nothing else."""
    mesh, jit, taken = mesh_of(1, 8, 1), jax.jit, []

    def recorded(function, **options):
        def run(*args):
            memory = jit(function, **options).lower(*args).compile().memory_analysis()
            taken.append((memory.output_size_in_bytes, memory.temp_size_in_bytes))
            return jit(function, **options)(*args)

        return run

    config = model_of(hidden=64, intermediate=128, vocab=512, head_dim=16)
    params = random_params(config, 0, mesh, jnp.bfloat16)
    monkeypatch.setattr(jax, "jit", recorded)
    init_state(params, make_optimizer(OptimizerConfig(), updates=1), mesh)
    share = 4 * config.parameters / 8
    # A tenth more for norms and biases, which every device has whole.
    assert taken == [(pytest.approx(2 * share, rel=0.1), 0), (pytest.approx(share, rel=0.1), 0)]
