"""Station 7, before anything heavy: who this process is, and whether model, data, rewards and output can be reached.

In: a ProcessConfig whose processes see each other. Out: `Ready`. Every check is agreed by all processes, so that all of
them end alike; no weight has been read when it is done.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer import bucket, outputs
from trainer.bucket import is_uri
from trainer.committed import committed_steps
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.models import ModelShape, check_lengths, check_model_over_tp
from trainer.contract.process import ProcessConfig
from trainer.contract.violations import Spelling
from trainer.data import QuestionSet, load_questions
from trainer.data import hub as datasets
from trainer.distributed import agree_any, text_of_first, together, unhurried
from trainer.inputs import Inputs, patiently
from trainer.model import source
from trainer.model.config import ModelConfig, UnsupportedModelError, read_model_config
from trainer.model.source import check_tokenizer, load_tokenizer, resolve_model
from trainer.parent import find_parent, record_of
from trainer.rewards import RewardSet
from trainer.rewards.loading import LoadError
from trainer.tracking import check_installed
from trainer.trained import Trained
from trainer.watchdog import Heartbeat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("trainer")


@dataclass(frozen=True, slots=True)
class Ready:
    """All that a run needs but its weights. `standing`: what its folder will say. `shared`: all processes see it."""

    standing: outputs.Standing
    model_folder: Path
    model: ModelConfig
    tokenizer: "PreTrainedTokenizerBase"
    parent: Trained | None
    train: QuestionSet
    evaluation: QuestionSet | None
    rewards: RewardSet
    shared: bool


def introduce(process: ProcessConfig, device_kind: str) -> list[str]:
    """Who this process is, and what it will do of each step."""
    plan, index = process.run.batch, process.process_index
    size = plan.prompts_per_pass_per_process
    mesh = f"dp {plan.mesh.dp}, fsdp {plan.mesh.fsdp}, tp {plan.mesh.tp}"
    passes = f"each of {plan.passes} passes" if plan.passes > 1 else "each step"
    return [
        f"process {index} (of {plan.processes}): {plan.devices_per_process} x {device_kind}, mesh {mesh}; "
        f"prompts {index * size + 1} to {(index + 1) * size} of the {size * plan.processes} in {passes}",
        plan.summary,
    ]


def already_done(process: ProcessConfig) -> bool:
    """Whether a restart finds its run finished: a pod was lost after the last step, and there is nothing left to do."""
    return process.attempt > 0 and text_of_first(str(outputs.read_standing(process).is_done(process.run))) == "True"


def check(process: ProcessConfig, heartbeat: Heartbeat) -> Ready:
    """Run every check. Raises RunError, the same kind on all processes."""
    standing = together(lambda: _standing(process))
    shared = _check_output(process)
    known = outputs.Standing() if process.starts_over else standing
    inputs = Inputs(process, known.inputs, shared, heartbeat)
    folder, revision = _fetch_model(process, inputs, known.model_revision)
    model, tokenizer = together(lambda: _check_model(process, folder))
    fetched = _fetch_data(process, inputs)
    train, evaluation = together(lambda: _check_data(process, tokenizer, fetched))
    together(lambda: check_installed(process))
    rewards = together(lambda: _check_rewards(process))
    needed = process.run.algorithm.beta > 0 or _begins(process)
    parent, origin = together(lambda: patiently(lambda: _check_parent(process, model))) if needed else (None, None)
    if not process.process_index:
        for one in standing.differences(process.run):
            log.info("changed since the last attempt: %s", one)
    begun = outputs.begun(process, standing, revision, inputs.record, origin)
    return Ready(begun, folder, model, tokenizer, parent, train, evaluation, rewards, shared)


def _begins(process: ProcessConfig) -> bool:
    """Whether there is no checkpoint to resume, as process 0 sees it."""
    folder = bucket.path(process.folder.checkpoints)
    steps = together(lambda: [] if process.process_index else patiently(lambda: committed_steps(folder)))
    return text_of_first(str(process.starts_over or not steps)) == "True"


def _check_parent(process: ProcessConfig, model: ModelConfig) -> tuple[Trained | None, dict[str, Any] | None]:
    """The checkpoint that the run begins with, and what is recorded of it; None where the model is its beginning."""
    wanted = process.run.checkpoint.init_from
    if wanted is None:
        return None, None
    parent = find_parent(wanted, process.run, model)
    return parent, record_of(parent, wanted)


def _standing(process: ProcessConfig) -> outputs.Standing:
    standing = outputs.read_standing(process)
    outputs.refuse_done(process, standing)
    outputs.refuse_changed(process, standing)
    return standing


def _check_output(process: ProcessConfig) -> bool:
    """Whether the folder is shared. Checkpoints of several processes need that."""
    together(lambda: outputs.make_writable(process))
    shared = not agree_any(not outputs.sees_probe_of(process, 0))
    together(lambda: outputs.remove_probe(process))
    if process.run.checkpoint.saves and not shared:
        raise RunError(
            ExitCode.INPUT_NOT_REACHABLE,
            f"output.uri: {process.run.output_uri} is not one folder for all processes, and checkpoints need that; "
            "use a shared volume, or set checkpoint.every_steps and every_minutes to 0 and best to null",
        )
    return shared


def _fetch_model(process: ProcessConfig, inputs: Inputs, recorded: str | None) -> tuple[Path, str | None]:
    """The model's folder, and its commit where it came from the hub: one commit for all processes and all attempts.

    Of a bucket, which keeps no commits, a digest of its objects stands for that.
    """
    path = process.run.model_path
    if agree_any(source.is_on_hub(path)):
        pin, folder = inputs.fetch(source.name_of(path), lambda: source.pin(path, recorded))
        return folder, pin.commit
    folder = unhurried(lambda: patiently(lambda: resolve_model(path)))
    begun = text_of_first(recorded or (folder.name if is_uri(path) else ""))
    together(lambda: _refuse_changed(path, folder, begun))
    return folder, begun or None


def _fetch_data(process: ProcessConfig, inputs: Inputs) -> Mapping[str, Sequence[datasets.HubFile]]:
    """The files of the data sets that are on the hub, by key."""
    run = process.run
    asked = [("data.train", run.data.train, "train")]
    asked += [("data.eval", run.data.eval, run.eval_split)] if run.eval_every_steps else []
    fetched = {}
    for field, name, split in asked:
        if agree_any(datasets.is_name(name)):
            resolve = partial(datasets.pin, field, name, split)
            fetched[field] = datasets.files_of(*inputs.fetch(datasets.name_of(field, name), resolve, split))
    return fetched


def _refuse_changed(path: str, folder: Path, recorded: str) -> None:
    if is_uri(path) and folder.name != recorded:
        raise RunError(
            ExitCode.INPUT_NOT_REACHABLE,
            f"model_path: {path} is not what it was when this run began (its objects were written again); bring the "
            "old ones back, or use --new-run to start afresh",
        )


def _check_model(process: ProcessConfig, folder: Path) -> tuple[ModelConfig, "PreTrainedTokenizerBase"]:
    try:
        model, tokenizer = read_model_config(folder), load_tokenizer(folder)
        check_tokenizer(tokenizer, model, folder)
    except UnsupportedModelError as error:
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, f"model_path: {error}") from error
    _check_shape(process, model)
    return model, tokenizer


def _check_shape(process: ProcessConfig, model: ModelConfig) -> None:
    """The rules that need the model's shape, which a folder's name could not tell the contract."""
    run, mesh = process.run, process.run.batch.mesh
    shape = ModelShape(
        layers=model.layers,
        hidden=model.hidden,
        intermediate=model.intermediate,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        vocab=model.vocab,
        max_positions=model.max_positions,
    )
    sampling, written = run.sampling, f"{mesh.dp},{mesh.fsdp},{mesh.tp}"
    faults = (
        check_lengths(shape, run.model_path, sampling.global_length, sampling.max_length_sample, Spelling.RUNNER),
        check_model_over_tp(shape, run.model_path, mesh, written, Spelling.RUNNER),
    )
    broken = [str(fault) for fault in faults if fault is not None]
    if broken:
        raise RunError(ExitCode.INVALID_CONFIG, "\n".join(broken))


def _check_data(
    process: ProcessConfig,
    tokenizer: "PreTrainedTokenizerBase",
    fetched: Mapping[str, Sequence[datasets.HubFile]],
) -> tuple[QuestionSet, QuestionSet | None]:
    run, longest = process.run, process.run.sampling.global_length
    answers = any(reward.python is None and reward.name == "correct" for reward in run.rewards)

    def load(role: Literal["train", "eval"], split: str) -> QuestionSet:
        files = fetched.get(f"data.{role}")
        return patiently(
            lambda: load_questions(role, split, run.data, tokenizer, longest, answers=answers, fetched=files)
        )

    return load("train", "train"), load("eval", run.eval_split) if run.eval_every_steps else None


def _check_rewards(process: ProcessConfig) -> RewardSet:
    rewards = RewardSet(process.run.rewards, process.run.data.answer_field, process.run.steps)
    try:
        rewards.start()
    except LoadError as error:
        rewards.stop()
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, str(error)) from error
    return rewards
