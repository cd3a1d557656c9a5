"""The run that another one begins from: a checkpoint of it comes in, the state that the new run begins with goes out.

It refuses to know how a run goes on: that is a checkpoint of its own.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import optax

from trainer.bucket import blamed
from trainer.checkpoint import restore_part, shape_of
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.run import RunConfig
from trainer.contract.runner import InitFromConfig
from trainer.model.config import ModelConfig
from trainer.model.sharding import param_shapes
from trainer.trained import Trained, look_up
from trainer.update import TrainState


def find_parent(wanted: InitFromConfig, run: RunConfig, model: ModelConfig) -> Trained:
    """The checkpoint that `checkpoint.init_from` names.

    Raises RunError: INPUT_NOT_REACHABLE or INVALID_CONFIG; BucketError where a bucket does not answer.
    """
    try:
        with blamed("checkpoint.init_from.uri"):
            found = look_up(
                wanted.uri if wanted.step is None else f"{wanted.uri.rstrip('/')}/checkpoints/{wanted.step}"
            )
    except RunError as error:
        raise RunError(error.code, f"checkpoint.init_from: {error.message}") from error
    if found.checkpoint is None or found.run is None:
        text = f"{wanted.uri} holds no checkpoint of a run; give a run folder or RUN/checkpoints/STEP"
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, f"checkpoint.init_from.uri: {text}; a model goes to model_path")
    if param_shapes(found.config) != param_shapes(model):
        text = f"{wanted.uri} was trained from {found.run.model_path}, and {run.model_path} has other weights"
        raise RunError(ExitCode.INVALID_CONFIG, f"checkpoint.init_from.uri: {text}; use that model_path")
    if run.lora != found.run.lora:
        told = "whole weights" if found.run.lora is None else f"adapters of {found.run.lora!r}"
        fix = "give it the same lora, or export that run and name the merged model as model_path"
        raise RunError(ExitCode.INVALID_CONFIG, f"checkpoint.init_from.uri: {wanted.uri} trained {told}; {fix}")
    own, other = run.optimizer.name, found.run.optimizer.name
    if wanted.restore == "All" and own != other:
        text = f"All needs the parent's optimizer, {other}, and optimizer.name is {own}; use {other}, or Weights"
        raise RunError(ExitCode.INVALID_CONFIG, f"checkpoint.init_from.restore: {text}")
    return found


def record_of(parent: Trained, wanted: InitFromConfig) -> dict[str, Any]:
    """Where a run comes from, for its run.json."""
    checkpoint = parent.checkpoint
    assert checkpoint is not None  # noqa: S101 - `find_parent` refuses all else
    body = json.loads((checkpoint.parent.parent / "run.json").read_text())
    return {"uri": str(checkpoint), "run_id": body["run_id"], "step": parent.step, "restore": wanted.restore}


def fork(parent: Trained, state: TrainState, wanted: InitFromConfig) -> TrainState:
    """`state` with the parent's weights, and with `All` the moments of its optimizer; laid out as `state` is.

    The learning rate and the count of updates begin anew, as the steps do.
    """
    assert parent.checkpoint is not None  # noqa: S101 - `find_parent` refuses all else
    part = {"params": state.params} | ({"opt_state": state.opt_state} if wanted.restore == "All" else {})
    found = restore_part(parent.checkpoint, jax.tree.map(shape_of, part))
    if wanted.restore == "Weights":
        return state._replace(params=found["params"])
    begun = optax.tree.set(found["opt_state"], _is_of_the_schedule, count=jnp.zeros_like(state.step))
    return TrainState(found["params"], begun, state.step)


def _is_of_the_schedule(path: tuple[Any, ...], _value: Any) -> bool:
    return getattr(path[-1], "tuple_name", None) == "ScaleByScheduleState"
