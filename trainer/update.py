"""Station 9, the step: one optimizer step on the completions of one training step, compiled once per batch shape.

In: `TrainState` (given up: its buffers are reused) and `TrainBatch`. Out: the next `TrainState` and scalar metrics.
It refuses to know where completions and advantages came from, and what is done about a step that was not finite.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from trainer.contract.run import Algorithm
from trainer.contract.runner import OptimizerConfig
from trainer.mesh import batch_sharding, replicated
from trainer.model.blocks import Blocks
from trainer.model.decoder import Params
from trainer.model.lora import Frozen
from trainer.objective import Sums, Terms, loss_sums
from trainer.policy import Scorer
from trainer.trainbatch import TrainBatch


class TrainState(NamedTuple):
    """All that one update hands to the next. `step` (int32) counts the updates that were applied.

    Where `params` are narrower than float32, `master` holds them in float32, and the optimizer changes those: of a
    bfloat16's eight bits, a step of 1e-6 would be rounded away (https://arxiv.org/abs/1710.03740, section 3.1).
    """

    params: Params
    opt_state: optax.OptState
    step: jax.Array
    master: Params | None = None


Metrics = dict[str, jax.Array]
"""Scalars: loss, entropy (nats per completion token), grad_norm (before clipping), clip_share, completion_tokens,
learning_rate, finite, and, where the batch has the log-probabilities for it, kl_old: the k3 estimate of KL(old ‖ new),
kl_reference: the algorithm's estimate of KL(new ‖ reference), mismatch_k3: the k3 estimate of KL(rollout ‖ old), which
would be 0 if both computed alike, mismatch_largest: the largest difference of a token, and importance_cut: the share
of tokens that the algorithm's importance cap cut.
"""

Update = Callable[[TrainState, TrainBatch], tuple[TrainState, Metrics]]
Logprobs = Callable[[Params, TrainBatch], jax.Array]


class Optimizer(NamedTuple):
    """`transform` turns gradients into changes; `learning_rate` tells the rate of update number n, counted from 0."""

    transform: optax.GradientTransformation
    learning_rate: Callable[[jax.Array], jax.Array]


def make_optimizer(config: OptimizerConfig, updates: int) -> Optimizer:
    """The optimizer of a run of `updates` optimizer steps (a micro-step is none), warm-up included.

    Norm clipping comes first. Weight decay is decoupled and spares norms and biases, as in Hugging Face's Trainer.
    """
    rate = partial(_learning_rate, config, updates)
    decay, mask = config.weight_decay, _is_matrix
    rules = {
        "adamw": lambda: optax.adamw(rate, weight_decay=decay, mask=mask),
        "lion": lambda: optax.lion(rate, weight_decay=decay, mask=mask),
        "sgd": lambda: optax.chain(optax.add_decayed_weights(decay, mask=mask), optax.sgd(rate)),
    }
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return Optimizer(optax.chain(clip, rules[config.name]()), rate)


def _learning_rate(config: OptimizerConfig, updates: int, update: jax.Array) -> jax.Array:
    """Warm-up reaches the full rate at update `warmup_steps`, and the decay reaches 0 only after the last update.

    So no update is lost to a rate of 0, neither the first nor the last.
    """
    done = update.astype(jnp.float32)
    rise = jnp.minimum((done + 1.0) / max(config.warmup_steps, 1), 1.0)
    passed = jnp.clip((done - config.warmup_steps) / max(updates - config.warmup_steps, 1), 0.0, 1.0)
    fall: dict[str, Any] = {"constant": 1.0, "linear": 1.0 - passed, "cosine": (1.0 + jnp.cos(jnp.pi * passed)) / 2.0}
    rate: jax.Array = config.learning_rate * rise * fall[config.schedule]
    return rate


def _is_matrix(params: Params) -> Any:
    whole = {name: leaf for name, leaf in params.items() if name != "layers"}
    # Weights of the layers are stacked: a layer's vector has two axes there.
    stacked = {"layers": jax.tree.map(lambda leaf: leaf.ndim > 2, params["layers"])}
    return jax.tree.map(lambda leaf: leaf.ndim > 1, whole) | stacked


def init_state(params: Params, optimizer: Optimizer, mesh: Mesh) -> TrainState:
    """The state before the first update. The optimizer's moments are float32 and split over devices like `params`."""
    init = partial(_initial_moments, optimizer)
    shardings = optax.tree.map_params(
        optimizer.transform.init,
        lambda _, param: param.sharding,
        jax.eval_shape(init, params),
        params,
        transform_non_params=lambda _: replicated(mesh),
    )
    step = jax.device_put(np.int32(0), replicated(mesh))
    return TrainState(params, jax.jit(init, out_shardings=shardings)(params), step, _master_of(params))


def _master_of(params: Params) -> Params | None:
    if all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params)):
        return None
    master: Params = jax.jit(_in_float32, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, params))(params)
    return master


def _initial_moments(optimizer: Optimizer, params: Params) -> optax.OptState:
    return optimizer.transform.init(_in_float32(params))


def make_update(
    score: Scorer,
    mesh: Mesh,
    optimizer: Optimizer,
    like: TrainState,
    *,
    algorithm: Algorithm,
    longest: int,
    frozen: Frozen | None = None,
) -> Update:
    """The compiled update. `like` is a state (or its shapes with shardings): what comes out is laid out like it.

    `longest` is the longest completion that the run allows. The parameters of the state are a model or, with `frozen`,
    adapters to that one. The gradient is summed over micro-steps in float32 and divided once, by the weight of the
    whole batch over all processes. A step whose loss or gradient is not finite changes nothing and says so in `finite`;
    neither does one without a token to train on, which weight decay and the optimizer's momentum would move.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)

    def micro_loss(frozen: Frozen | None, params: Params, batch: TrainBatch) -> tuple[jax.Array, Sums]:
        whole = params if frozen is None else frozen.joined(params)
        logprobs, entropy = score(whole, batch.blocks)
        sums = loss_sums(Terms(logprobs, entropy, *batch[1:]), algorithm, longest)
        return sums.loss, sums

    def update(state: TrainState, batch: TrainBatch, frozen: Frozen | None = None) -> tuple[TrainState, Metrics]:
        gradients, sums = _accumulate(partial(micro_loss, frozen), state.params, batch, shardings.params)
        metrics = _metrics(gradients, sums, batch, algorithm) | {"learning_rate": optimizer.learning_rate(state.step)}
        proposed, applies = _apply(optimizer, state, gradients), metrics["finite"] & (sums.tokens > 0)
        kept = jax.tree.map(lambda new, old: jnp.where(applies, new, old), proposed, state)
        return kept, metrics

    compiled = jax.jit(update, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))
    # An argument: as constants, the frozen weights would be copied into the program.
    return compiled if frozen is None else partial(compiled, frozen=frozen)


def make_logprobs(score: Scorer, mesh: Mesh) -> Logprobs:
    """The compiled log-probabilities of a batch's completion tokens under given weights, shaped as `old_logprobs`."""

    def logprobs(params: Params, batch: TrainBatch) -> jax.Array:
        def micro_step(_: None, blocks: Blocks) -> tuple[None, jax.Array]:
            return None, score(params, blocks)[0]

        found: jax.Array = jax.lax.scan(micro_step, None, batch.blocks)[1]
        return found

    return jax.jit(logprobs, out_shardings=batch_sharding(mesh, row_axis=1))


def _accumulate(
    micro_loss: Callable[[Params, TrainBatch], tuple[jax.Array, Sums]],
    params: Params,
    batch: TrainBatch,
    shardings: Any,
) -> tuple[Params, Sums]:
    """Gradient of the loss of the whole batch, float32, and the sums over its micro-steps."""
    differentiate = jax.grad(micro_loss, has_aux=True)

    def add(total: tuple[Params, Sums], micro: TrainBatch) -> tuple[tuple[Params, Sums], None]:
        gradients, sums = differentiate(params, micro)
        gradients = jax.lax.with_sharding_constraint(_in_float32(gradients), shardings)
        return (jax.tree.map(jnp.add, total[0], gradients), total[1].plus(sums)), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
    start = (jax.lax.with_sharding_constraint(zeros, shardings), Sums.nothing())
    (gradients, sums), _ = jax.lax.scan(add, start, batch)
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(sums.weight, 1.0), gradients), sums


def _metrics(gradients: Params, sums: Sums, batch: TrainBatch, algorithm: Algorithm) -> Metrics:
    tokens = jnp.maximum(sums.tokens.astype(jnp.float32), 1.0)
    loss, grad_norm = sums.loss / jnp.maximum(sums.weight, 1.0), optax.tree.norm(gradients)
    measured = {} if batch.old_logprobs is None else {"kl_old": sums.old_divergence / tokens}
    if batch.reference_logprobs is not None:
        measured["kl_reference"] = sums.reference_divergence / tokens
    if batch.rollout_logprobs is not None:
        measured |= {"mismatch_k3": sums.mismatch / tokens, "mismatch_largest": sums.largest_mismatch}
    if algorithm.importance_cap is not None:
        measured["importance_cut"] = sums.cut.astype(jnp.float32) / tokens
    return measured | {
        "loss": loss,
        "entropy": sums.entropy / tokens,
        "grad_norm": grad_norm,
        "clip_share": sums.clipped.astype(jnp.float32) / tokens,
        "completion_tokens": sums.tokens,
        "finite": jnp.isfinite(loss) & jnp.isfinite(grad_norm),
    }


def _apply(optimizer: Optimizer, state: TrainState, gradients: Params) -> TrainState:
    params = state.params if state.master is None else state.master
    # optax mixes integers and floats, which the strict promotion of our tests refuses.
    with jax.numpy_dtype_promotion("standard"):
        changes, opt_state = optimizer.transform.update(gradients, state.opt_state, params)
    changed = jax.tree.map(jnp.add, params, changes)
    rounded = jax.tree.map(lambda old, new: new.astype(old.dtype), state.params, changed)
    return TrainState(rounded, opt_state, state.step + 1, None if state.master is None else changed)


def _in_float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)
