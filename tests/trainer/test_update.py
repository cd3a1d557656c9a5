"""The compiled optimizer step: what it computes, and that no layout changes it."""

import dataclasses
import itertools
import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from small_step import GRPO, model_of, plan_of

from trainer.contract.batch import BatchPlan
from trainer.contract.runner import OptimizerConfig
from trainer.mesh import build_mesh, rows_to_global
from trainer.model.decoder import causal_attention, head, hidden_states
from trainer.model.weights import random_params
from trainer.policy import make_scorer
from trainer.trainbatch import TrainBatch, TrainRow, build_train_batch, row_order, sizes_of
from trainer.update import Metrics, Optimizer, TrainState, init_state, make_optimizer, make_update

MODEL = model_of()
ADAMW = make_optimizer(OptimizerConfig(learning_rate=1e-2, weight_decay=0.1), updates=10)
PROMPT, COMPLETION, TEMPERATURE = 5, 6, 0.9


def rows(seed: int = 0) -> list[TrainRow]:
    """A group of the shortest and one of the longest prompt, completions of all lengths, advantages of both signs."""
    draw = np.random.default_rng(seed)
    prompts = [draw.integers(3, MODEL.vocab, length).tolist() for length in (1, PROMPT)]
    lengths = itertools.cycle([COMPLETION, 1, 4])
    return [
        TrainRow(prompts[place // 4], draw.integers(3, MODEL.vocab, next(lengths)).tolist(), float(draw.normal()))
        for place in range(8)
    ]


@dataclasses.dataclass
class Step:
    """An update, compiled for one layout, with the state it starts from."""

    plan: BatchPlan
    mesh: Mesh
    state: TrainState
    update: Callable[[TrainState, TrainBatch], tuple[TrainState, Metrics]]

    def batch(self, given: list[TrainRow] | None = None) -> TrainBatch:
        given = given or rows()
        lengths = np.array([len(row.completion) for row in given])
        sizes = sizes_of(lengths, self.plan, prompt_bucket=PROMPT, limit=COMPLETION)
        return build_train_batch(given, self.plan, self.mesh, pad_id=0, sizes=sizes)

    def run(self, given: list[TrainRow] | None = None, **fields: Any) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """One step on `given`; parameters by name, and metrics. The state moves on."""
        self.state, metrics = self.update(self.state, self.batch(given)._replace(**fields))
        return flat(self.state.params), {name: float(value) for name, value in metrics.items()}


def flat(tree: Any) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@cache
def compiled(plan: BatchPlan, optimizer: Optimizer, params_dtype: Any, compute_dtype: Any) -> Step:
    mesh = build_mesh(plan, jax.devices()[: plan.devices_per_process])
    state = init_state(random_params(MODEL, 1, mesh, params_dtype), optimizer, mesh)
    score = make_scorer(MODEL, mesh, temperature=TEMPERATURE, compute_dtype=compute_dtype, remat="layer")
    update = make_update(score, mesh, optimizer, state, algorithm=GRPO, longest=COMPLETION)
    return Step(plan, mesh, state, update)


def step_of(
    plan: BatchPlan, optimizer: Optimizer = ADAMW, params_dtype: Any = jnp.float32, compute_dtype: Any = jnp.float32
) -> Step:
    """A step at its first state; programs are shared between the tests that ask for the same one."""
    first = compiled(plan, optimizer, params_dtype, compute_dtype)
    return dataclasses.replace(first, state=jax.tree.map(jnp.copy, first.state))


@cache
def keep_gradients() -> Optimizer:
    """An optimizer that changes nothing and holds the gradients that it was given."""
    return Optimizer(
        optax.GradientTransformation(
            lambda params: jax.tree.map(jnp.zeros_like, params),
            lambda gradients, _, params: (jax.tree.map(jnp.zeros_like, params), gradients),
        ),
        lambda update: jnp.float32(1.0),
    )


def textbook(params: Any, given: list[TrainRow]) -> tuple[float, float, Any]:
    """Loss, entropy and gradient row by row without padding, from the whole softmax: -Σ r · A / tokens with r = 1."""
    tokens = sum(len(row.completion) for row in given)
    parts = [textbook_row(params, jnp.array([row.prompt]), jnp.array([row.completion]), row.advantage) for row in given]
    (loss, entropy), gradient = jax.tree.map(lambda *leaves: sum(leaves) / tokens, *parts)
    return float(loss), float(entropy), gradient


@jax.jit
def log_softmax_of(params: Any, prompt: jax.Array, completion: jax.Array) -> jax.Array:
    """[completion token, vocab]"""
    tokens = jnp.concatenate([prompt, completion], axis=1)
    places, attend = jnp.arange(tokens.shape[1])[None], causal_attention(jnp.ones(tokens.shape, bool))
    hidden = hidden_states(params, MODEL, tokens, places, attend, mesh=None, compute_dtype=jnp.float32)
    return jax.nn.log_softmax(hidden[0] @ head(params).T / TEMPERATURE)[prompt.shape[1] - 1 : -1]


@jax.jit
@partial(jax.value_and_grad, has_aux=True)
def textbook_row(params: Any, prompt: jax.Array, completion: jax.Array, advantage: jax.Array) -> Any:
    table = log_softmax_of(params, prompt, completion)
    logprobs = jnp.take_along_axis(table, completion.T, axis=1)
    ratio = jnp.exp(logprobs - jax.lax.stop_gradient(logprobs))
    return -(ratio * advantage).sum(), -(jnp.exp(table) * table).sum()


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Gradients and metrics of one device without micro-steps."""
    return gradients_of(plan_of())


def gradients_of(plan: BatchPlan) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    step = step_of(plan, keep_gradients())
    _, metrics = step.run()
    return flat(step.state.opt_state), metrics


def test_loss_gradient_and_entropy_are_those_of_rows_without_padding() -> None:
    """Padding, buckets, chunks and rematerialisation change nothing against the textbook, row by row."""
    step = step_of(plan_of(2, 2, 2, 2), keep_gradients())
    before = jax.tree.map(jnp.array, step.state.params)
    _, metrics = step.run()
    loss, entropy, gradients = textbook(before, rows())
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["entropy"] == pytest.approx(entropy, rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(float(optax.tree.norm(gradients)), rel=1e-5)
    assert metrics["completion_tokens"] == sum(len(row.completion) for row in rows())
    held = flat(step.state.opt_state)
    for name, gradient in flat(gradients).items():
        np.testing.assert_allclose(held[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("micro_steps", [2, 4])
def test_accumulation_equals_the_whole_batch(whole: tuple[Any, Any], micro_steps: int) -> None:
    """1, 2 and 4 micro-steps of unequal token counts: the same loss, measurements and gradient."""
    assert_same(gradients_of(plan_of(micro_steps=micro_steps)), whole)


@pytest.mark.parametrize(
    ("dp", "fsdp", "tp", "micro_steps"), [(8, 1, 1, 1), (1, 8, 1, 1), (1, 1, 4, 2), (2, 2, 2, 2), (1, 2, 4, 4)]
)
def test_every_mesh_equals_one_device(whole: tuple[Any, Any], dp: int, fsdp: int, tp: int, micro_steps: int) -> None:
    """Devices in any grid, with micro-steps: the same loss, measurements and gradient."""
    assert_same(gradients_of(plan_of(dp, fsdp, tp, micro_steps)), whole)


def assert_same(ours: tuple[Any, Any], theirs: tuple[Any, Any]) -> None:
    for name, value in theirs[1].items():
        assert ours[1][name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    # Not the parameters after a step: AdamW takes as large a step where a gradient is hardly more than rounding.
    for name, value in theirs[0].items():
        assert np.linalg.norm(ours[0][name] - value) < 1e-5 * np.linalg.norm(value), name


def test_rows_that_are_not_trained_count_nowhere() -> None:
    """A step with three rows out of training is the step of the other five: loss, entropy, tokens and gradient."""
    given = [row._replace(trained=place not in (1, 4, 6)) for place, row in enumerate(rows())]
    kept = [row for row in given if row.trained]
    step = step_of(plan_of(2, 2, 2, 2), keep_gradients())
    params = jax.tree.map(np.array, step.state.params)
    _, metrics = step.run(given)
    loss, entropy, gradients = textbook(params, kept)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["entropy"] == pytest.approx(entropy, rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(float(optax.tree.norm(gradients)), rel=1e-5)
    assert metrics["completion_tokens"] == sum(len(row.completion) for row in kept)


def test_nothing_to_train_on_changes_nothing() -> None:
    """With every row out of training, loss, gradient and entropy are 0, and neither momentum nor decay moves a weight.

    The state is that after a step, whose momentum would go on.
    """
    step = step_of(plan_of(2, 2, 2, 2))
    step.run()
    before = flat(step.state)
    _, metrics = step.run([row._replace(trained=False) for row in rows()])
    told = {name: metrics[name] for name in ("loss", "grad_norm", "entropy", "completion_tokens", "finite")}
    assert told == {"loss": 0, "grad_norm": 0, "entropy": 0, "completion_tokens": 0, "finite": 1}
    after = flat(step.state)
    assert all(np.array_equal(after[name], value) for name, value in before.items())


def test_advantages_of_zero_leave_a_gradient_of_exactly_zero() -> None:
    """Groups without variance move nothing, to the last bit."""
    step = step_of(plan_of(2, 2, 2, 2), keep_gradients())
    _, metrics = step.run([row._replace(advantage=0.0) for row in rows()])
    assert metrics["grad_norm"] == 0.0
    assert metrics["completion_tokens"] > 0


@pytest.mark.parametrize("advantage", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_says_so(advantage: float) -> None:
    """Parameters, moments and the count of updates stay; the next finite step is the first."""
    step = step_of(plan_of(2, 2, 2, 2))
    before = flat(step.state)
    spoiled = [rows()[0]._replace(advantage=advantage), *rows()[1:]]
    _, metrics = step.run(spoiled)
    assert metrics["finite"] == 0.0
    after = flat(step.state)
    assert before.keys() == after.keys()
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    _, metrics = step.run()
    assert (metrics["finite"], int(step.state.step)) == (1.0, 1)


def test_old_log_probabilities_turn_on_ratio_clip_and_divergence() -> None:
    """With ratios of 1.5 everywhere, the clip takes over where the advantage is positive; k3 = 0.5 - ln 1.5."""
    step = step_of(plan_of(2, 2, 2, 2), keep_gradients())
    seen = []
    for advantage in (1.0, -1.0):
        given = [row._replace(advantage=advantage) for row in rows()]
        logprobs = logprobs_of(step, given)
        _, metrics = step.run(given, old_logprobs=logprobs - jnp.log(1.5))
        assert metrics["kl_old"] == pytest.approx(0.5 - np.log(1.5), rel=1e-4)
        seen.append((metrics["loss"], metrics["clip_share"], metrics["grad_norm"] > 0))
    assert seen == [(pytest.approx(-1.2), 1.0, False), (pytest.approx(1.5, rel=1e-5), 0.0, True)]


def logprobs_of(step: Step, given: list[TrainRow]) -> jax.Array:
    """Log-probabilities of the completion tokens, from the whole softmax, as the batch lays its rows out."""
    found = np.zeros((len(given), COMPLETION), np.float32)
    for place, row in enumerate(given):
        table = log_softmax_of(step.state.params, jnp.array([row.prompt]), jnp.array([row.completion]))
        found[place, : len(row.completion)] = np.asarray(table)[np.arange(len(row.completion)), row.completion]
    order = row_order(np.array([len(row.completion) for row in given]), step.plan)
    return rows_to_global(step.mesh, found[order], row_axis=1)


def test_states_of_the_prompt_never_meet_the_head() -> None:
    """Logits exist for the places of completion tokens only, fewer than padded rows have."""
    step = step_of(plan_of(), keep_gradients())
    batch = step.batch()
    text = step.update.lower(step.state, batch).as_text()
    widths = {int(width) for width in re.findall(rf"tensor<1x(\d+)x{MODEL.vocab}xf32>", text)}
    assert widths == {batch.blocks.picked.shape[-1]} == {36}


def test_micro_steps_reshard_nothing() -> None:
    """With data parallelism alone the devices only ever sum; with every axis, no row or weight is re-dealt."""
    for grid, refused in [
        ((4, 1, 1, 2), "all-to-all|collective-permute|all-gather"),
        ((2, 2, 2, 2), "all-to-all|collective-permute"),
    ]:
        step = step_of(plan_of(*grid))
        text = step.update.lower(step.state, step.batch()).compile().as_text()
        assert re.search(r" all-reduce(-start)?\(", text)
        assert not re.findall(rf" (?:{refused})(?:-start)?\(", text)


def test_state_is_given_up_and_repeated_shapes_compile_once() -> None:
    """Three steps on different rows use one program, and the buffers of the old state are gone after each."""
    step = step_of(plan_of(2, 2, 2, 2))
    for seed in range(3):
        old = jax.tree.leaves(step.state)
        step.run(rows(seed))
        assert all(leaf.is_deleted() for leaf in old)
    assert step.update._cache_size() == 1
    assert int(step.state.step) == 3


def test_bfloat16_compute_follows_float32(whole: tuple[Any, Any]) -> None:
    """In bfloat16 compute, loss and gradient norm are those of float32 within bfloat16's rounding."""
    # jax.nn.dot_product_attention itself promotes bfloat16 scores to float32.
    with jax.numpy_dtype_promotion("standard"):
        _, metrics = step_of(plan_of(2, 2, 2, 2), compute_dtype=jnp.bfloat16).run()
    for name in ("loss", "grad_norm", "entropy"):
        assert metrics[name] == pytest.approx(whole[1][name], rel=0.03), name


def test_steps_below_the_resolution_of_bfloat16_add_up() -> None:
    """100 steps of 1e-6 move bfloat16 weights by 1e-4, a tenth of their resolution: moments and master are float32."""
    step = step_of(plan_of(1, 2, 1, 2), make_optimizer(OptimizerConfig(learning_rate=1e-6), 100), jnp.bfloat16)
    floats = [leaf.dtype for leaf in jax.tree.leaves(step.state.opt_state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("float32")}
    before, first = flat(step.state.params["layers"]), flat(step.state.master["layers"])
    for _ in range(100):
        _, metrics = step.run()
    assert metrics["finite"] == 1.0
    after, master = flat(step.state.params["layers"]), flat(step.state.master["layers"])
    for name in ("['q']", "['down']"):
        assert after[name].dtype == jnp.bfloat16
        np.testing.assert_array_equal(first[name], before[name].astype(np.float32))
        assert np.median(np.abs(master[name] - first[name])) == pytest.approx(1e-4, rel=0.2)
        np.testing.assert_array_equal(after[name], master[name].astype(jnp.bfloat16))
        assert 0.02 < (after[name] != before[name]).mean() < 0.5


def test_float32_parameters_are_kept_once() -> None:
    """Where the weights are float32 they are their own master."""
    assert step_of(plan_of(1, 2, 1, 2)).state.master is None
