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
from trainer.checkpoint import Checkpoints, Place, fingerprint
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.contract.run import RunConfig, Sampling
from trainer.evaluate import Evaluation, Exam
from trainer.export import Adapter, Exporter
from trainer.learning import Learner
from trainer.lookout import Lookout
from trainer.loop import Loop, Run
from trainer.mesh import build_mesh
from trainer.metrics import Row
from trainer.model.decoder import Params
from trainer.model.lora import Frozen, init_adapters
from trainer.model.source import stop_ids
from trainer.model.weights import load_params
from trainer.parent import fork
from trainer.policy import make_scorer
from trainer.preflight import Ready
from trainer.programs import keep_programs
from trainer.rollout import Rollout, StopStrings
from trainer.tracking import Tracking
from trainer.trained import base_of, lora_of
from trainer.update import Optimizer, TrainState, init_state, make_logprobs, make_optimizer, make_update
from trainer.usage import Usage
from trainer.watchdog import Heartbeat

log = logging.getLogger("trainer")


def build(
    process: ProcessConfig,
    ready: Ready,
    heartbeat: Heartbeat,
    lookout: Lookout,
    on_step: Callable[[Row], None],
    publish: Callable[[], None],
) -> tuple[Loop, TrainState, Place]:
    """Weights are read or restored, programs compiled at first use. `publish` brings the run folder up to date."""
    run = process.run
    keep_programs(process.folder.compile_cache)
    heartbeat.begin("loading")
    mesh = build_mesh(run.batch)
    optimizer = make_optimizer(run.optimizer, run.steps * run.algorithm.ppo_epochs)
    state, frozen, reference = _weights(run, ready, mesh, optimizer)
    heartbeat.beat()
    learner = _learner(process, ready, mesh, optimizer, state, frozen, reference)
    checkpoints = Checkpoints(process.folder.checkpoints, run.checkpoint.keep, publish) if ready.shared else None
    start = Place(0, 0, ready.train.digest, base=None if frozen is None else fingerprint(frozen.params))
    state, place = _begin(process, checkpoints, state, start, ready.train.source)
    heartbeat.beat()
    asker = _asker(run, ready, mesh, run.sampling, heartbeat, lookout)
    built = Run(
        process=process,
        mesh=mesh,
        asker=asker,
        questions=ready.train,
        evaluation=_evaluation(process, ready, mesh, asker, heartbeat, lookout),
        learner=learner,
        usage=_usage(run, ready, frozen),
        tracking=Tracking.of(process),
        checkpoints=checkpoints,
        heartbeat=heartbeat,
        lookout=lookout,
        on_step=on_step,
        publish=publish,
        export=_export(process, ready, heartbeat, frozen),
    )
    _announce(process, ready, place)
    return Loop(built), state, place


def _weights(
    run: RunConfig, ready: Ready, mesh: Mesh, optimizer: Optimizer
) -> tuple[TrainState, Frozen | None, Params | None]:
    """What is trained, the model that it is trained beside where it is adapters, and the weights of the KL term."""
    params = load_params(ready.model_folder, ready.model, mesh, _dtype(run.precision.params))
    lora, needs_reference = lora_of(run), run.algorithm.beta > 0
    if lora is not None:
        adapters = init_state(init_adapters(ready.model, lora, run.seed, mesh), optimizer, mesh)
        return _forked(run, ready, adapters), Frozen(params, lora), params if needs_reference else None
    state = _forked(run, ready, init_state(params, optimizer, mesh))
    # A copy, because the update gives the policy's buffers away; and before a checkpoint takes the policy's place.
    return state, None, jax.tree.map(jnp.copy, state.params) if needs_reference else None


def _forked(run: RunConfig, ready: Ready, state: TrainState) -> TrainState:
    wanted = run.checkpoint.init_from
    return state if ready.parent is None or wanted is None else fork(ready.parent, state, wanted)


def _begin(
    process: ProcessConfig, checkpoints: Checkpoints | None, state: TrainState, start: Place, source: str
) -> tuple[TrainState, Place]:
    """The newest checkpoint where there is one to resume, else `start`. `source` is what the questions came from."""
    if checkpoints is None:
        return state, start
    if process.starts_over:
        checkpoints.clear()
    found = checkpoints.restore_newest(state)
    if found is None:
        return state, start
    restored, place = found
    if place.data != start.data:
        raise _changed(f"data.train: {source}", place)
    if place.base != start.base:
        raise _changed(f"model_path: {process.run.model_path}", place)
    return restored, place


def _changed(what: str, place: Place) -> RunError:
    return RunError(
        ExitCode.FAILED,
        f"{what} is not what it was at step {place.step}, whose checkpoint this run would resume; bring the old one "
        "back, or use --new-run to start afresh",
        agreed=True,
    )


def _learner(
    process: ProcessConfig,
    ready: Ready,
    mesh: Mesh,
    optimizer: Optimizer,
    state: TrainState,
    frozen: Frozen | None,
    reference: Params | None,
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
    longest = sampling.max_length_sample
    return Learner(
        run,
        process.process_index,
        mesh,
        _pad_id(ready),
        make_update(score, mesh, optimizer, state, algorithm=run.algorithm, longest=longest, frozen=frozen),
        make_logprobs(score, mesh),
        ready.train.usual_longest(run.batch.prompts_per_step),
        reference,
        frozen,
    )


def _asked(heartbeat: Heartbeat, lookout: Lookout) -> Callable[[], bool]:
    """What a rollout asks once a chunk of tokens: the chunk before is progress."""

    def asked() -> bool:
        heartbeat.beat()
        return lookout.asked

    return asked


def _asker(
    run: RunConfig, ready: Ready, mesh: Mesh, sampling: Sampling, heartbeat: Heartbeat, lookout: Lookout
) -> Asker:
    stops = StopStrings(sampling.stop, partial(ready.tokenizer.decode, skip_special_tokens=True))
    rollout = Rollout(
        ready.model,
        mesh,
        sampling,
        stop_ids=stop_ids(ready.tokenizer, ready.model),
        pad_id=_pad_id(ready),
        compute_dtype=_dtype(run.precision.compute),
        end=stops.end if sampling.stop else None,
        asked=_asked(heartbeat, lookout),
    )
    return Asker(rollout, stops, ready.rewards, heartbeat.extend)


def _evaluation(
    process: ProcessConfig, ready: Ready, mesh: Mesh, asker: Asker, heartbeat: Heartbeat, lookout: Lookout
) -> Evaluation | None:
    """Greedy evaluation asks as training does; sampling at a temperature of its own needs a rollout of its own."""
    if ready.evaluation is None:
        return None
    run = process.run
    if run.eval.temperature not in (0, run.sampling.temperature):
        sampling = run.sampling.model_copy(update={"temperature": run.eval.temperature})
        asker = _asker(run, ready, mesh, sampling, heartbeat, lookout)
    folder = Path(process.folder.evaluations)
    return Evaluation(asker, Exam(ready.evaluation, run.eval, run.seed, run.batch, process.process_index, folder))


def _usage(run: RunConfig, ready: Ready, frozen: Frozen | None) -> Usage:
    adapters = 0 if frozen is None else frozen.lora.parameters(ready.model)
    devices, epochs = jax.local_devices(), run.algorithm.ppo_epochs
    return Usage(ready.model, run.batch, run.precision.compute, devices, epochs=epochs, adapters=adapters)


def _export(
    process: ProcessConfig, ready: Ready, heartbeat: Heartbeat, frozen: Frozen | None
) -> Callable[[Params], None] | None:
    if process.run.export.when == "Never":
        return None
    writes = process.process_index == 0
    exporter = Exporter(ready.model_folder, ready.model, process.run.export.dtype, writes, heartbeat.beat)

    revision = ready.standing.model_revision
    base = base_of(process.run, revision)

    def export(params: Params) -> None:
        target = Path(process.folder.export)
        if frozen is None:
            exporter.write(params, target)
        else:
            exporter.write(frozen.merged(params), target, Adapter(params, frozen.lora, base, revision))
        log.info("exported to %s in %s", process.folder.told(process.folder.export), process.run.export.dtype)

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
    if (lora := lora_of(process.run)) is not None:
        modules = ", ".join(lora.modules)
        log.info("lora: %s parameters of rank %d beside %s", f"{lora.parameters(ready.model):,}", lora.rank, modules)
    log.info("data: train %s", ready.train.summary)
    if ready.evaluation is not None:
        log.info("data: eval %s", ready.evaluation.summary)
    origin = f"starting from {ready.parent.checkpoint}" if ready.parent else "starting"
    where = f"resuming after step {place.step}" if place.step else origin
    log.info("%s, %d steps, in %s", where, process.run.steps, process.folder.root)
