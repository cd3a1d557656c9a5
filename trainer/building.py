"""Station 7, build: from what preflight found to a run that can begin its loop: mesh, weights, programs, checkpoints.

In: a ProcessConfig and `Ready`. Out: the loop, the state it starts with, and the place where it stands. All processes
build together.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trainer.arrays.truncation import Truncation
from trainer.asking import Asker
from trainer.checkpoint import Checkpoints, Place
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.contract.run import RunConfig, Sampling
from trainer.data import QuestionSet
from trainer.evaluate import Evaluation, Exam
from trainer.export import Exporter
from trainer.learning import Learner
from trainer.loop import Loop, Run
from trainer.mesh import build_mesh
from trainer.model.decoder import Params
from trainer.model.source import stop_ids
from trainer.model.weights import load_params
from trainer.policy import make_scorer
from trainer.preflight import Ready
from trainer.rollout import Rollout, StopStrings
from trainer.tracking import Tracking
from trainer.update import Optimizer, TrainState, init_state, make_logprobs, make_optimizer, make_update
from trainer.usage import Usage
from trainer.watchdog import Heartbeat

log = logging.getLogger("trainer")


def build(
    process: ProcessConfig,
    ready: Ready,
    heartbeat: Heartbeat,
    interrupted: Callable[[], bool],
    on_step: Callable[[int], None],
) -> tuple[Loop, TrainState, Place]:
    """Weights are read, or restored; programs are compiled when they are first used."""
    run = process.run
    _keep_programs(process)
    mesh = build_mesh(run.batch)
    optimizer = make_optimizer(run.optimizer, run.steps * run.algorithm.ppo_epochs)
    params = load_params(ready.model_folder, ready.model, mesh, _dtype(run.precision.params))
    # A copy, because the update gives the policy's buffers away; and before a checkpoint takes the policy's place.
    reference = jax.tree.map(jnp.copy, params) if run.algorithm.beta else None
    state = init_state(params, optimizer, mesh)
    heartbeat.beat()
    learner = _learner(process, ready, mesh, optimizer, state, reference)
    checkpoints = Checkpoints(process.folder.checkpoints, run.checkpoint.keep) if ready.shared else None
    state, place = _begin(run, checkpoints, state, ready.train)
    heartbeat.beat()
    asker = _asker(run, ready, mesh, run.sampling)
    built = Run(
        process=process,
        mesh=mesh,
        asker=asker,
        questions=ready.train,
        evaluation=_evaluation(process, ready, mesh, asker),
        learner=learner,
        usage=_usage(run, ready),
        tracking=Tracking.of(process),
        checkpoints=checkpoints,
        heartbeat=heartbeat,
        interrupted=interrupted,
        on_step=on_step,
        export=_export(process, ready, heartbeat),
    )
    _announce(process, ready, place)
    return Loop(built), state, place


def _keep_programs(process: ProcessConfig) -> None:
    if jax.default_backend() != "cpu":  # there, a program of another machine's CPU could be loaded
        jax.config.update("jax_compilation_cache_dir", process.folder.compile_cache)


def _begin(
    run: RunConfig, checkpoints: Checkpoints | None, state: TrainState, questions: QuestionSet
) -> tuple[TrainState, Place]:
    """The newest checkpoint where there is one to resume, else the beginning."""
    start = Place(step=0, cursor=0, data=questions.digest)
    if checkpoints is None:
        return state, start
    if run.checkpoint.resume == "Never":
        checkpoints.clear()
    found = checkpoints.restore_newest(state)
    if found is None:
        return state, start
    restored, place = found
    if place.data != start.data:
        raise RunError(
            ExitCode.FAILED,
            f"data.train: {questions.source} is not what it was at step {place.step}, whose checkpoint this run would "
            "resume; bring the old data back, or use --new-run to start afresh",
            agreed=True,
        )
    return restored, place


def _learner(
    process: ProcessConfig, ready: Ready, mesh: Mesh, optimizer: Optimizer, state: TrainState, reference: Params | None
) -> Learner:
    run, sampling = process.run, process.run.sampling
    score = make_scorer(
        ready.model,
        mesh,
        temperature=sampling.temperature,
        truncation=Truncation(sampling.top_k, sampling.top_p, sampling.min_p),
        compute_dtype=_dtype(run.precision.compute),
        remat=run.precision.remat,
    )
    return Learner(
        run,
        process.process_index,
        mesh,
        _pad_id(ready),
        make_update(score, mesh, optimizer, state, algorithm=run.algorithm, longest=sampling.max_length_sample),
        make_logprobs(score, mesh),
        reference,
    )


def _asker(run: RunConfig, ready: Ready, mesh: Mesh, sampling: Sampling) -> Asker:
    stops = StopStrings(sampling.stop, partial(ready.tokenizer.decode, skip_special_tokens=True))
    rollout = Rollout(
        ready.model,
        mesh,
        sampling,
        stop_ids=stop_ids(ready.tokenizer, ready.model),
        pad_id=_pad_id(ready),
        compute_dtype=_dtype(run.precision.compute),
        end=stops.end if sampling.stop else None,
    )
    return Asker(rollout, stops, ready.rewards)


def _evaluation(process: ProcessConfig, ready: Ready, mesh: Mesh, asker: Asker) -> Evaluation | None:
    """Greedy evaluation asks as training does; sampling at a temperature of its own needs a rollout of its own."""
    if ready.evaluation is None:
        return None
    run = process.run
    if run.eval.temperature not in (0, run.sampling.temperature):
        sampling = run.sampling.model_copy(update={"temperature": run.eval.temperature})
        asker = _asker(run, ready, mesh, sampling)
    folder = Path(process.folder.evaluations)
    return Evaluation(asker, Exam(ready.evaluation, run.eval, run.seed, run.batch, process.process_index, folder))


def _usage(run: RunConfig, ready: Ready) -> Usage:
    devices = jax.local_devices()
    return Usage(ready.model, run.batch, run.precision.compute, devices, epochs=run.algorithm.ppo_epochs)


def _export(process: ProcessConfig, ready: Ready, heartbeat: Heartbeat) -> Callable[[Params], None] | None:
    if process.run.export.when == "Never":
        return None
    writes = process.process_index == 0
    exporter = Exporter(ready.model_folder, ready.model, process.run.export.dtype, writes, heartbeat.beat)

    def export(params: Params) -> None:
        exporter.write(params, Path(process.folder.export))
        log.info("exported to %s in %s", process.folder.export, process.run.export.dtype)

    return export


def _pad_id(ready: Ready) -> int:
    """Any id does: padding is never told from tokens by its value."""
    tokenizer = ready.tokenizer
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


def _dtype(name: str) -> Any:
    return {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[name]


def _announce(process: ProcessConfig, ready: Ready, place: Place) -> None:
    if process.process_index:
        return
    log.info("model %s: %s parameters", process.run.model_path, f"{ready.model.parameters:,}")
    log.info("data: train %s", ready.train.summary)
    if ready.evaluation is not None:
        log.info("data: eval %s", ready.evaluation.summary)
    where = f"resuming after step {place.step}" if place.step else "starting"
    log.info("%s, %d steps, in %s", where, process.run.steps, process.folder.root)
