"""The resolved run: what the launcher hands to every process, with nothing left to decide.

`resolve_run` takes the parsed runner tree and the machine it will run on, and returns a RunConfig or all violations.
"""

import json
import re
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from trainer.contract.batch import BatchPlan, resolve_batch, suggested_fix
from trainer.contract.batchwords import PATHS
from trainer.contract.checks import check_tree
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.judgement import BatchRequest, judge
from trainer.contract.models import check_lengths, check_model_over_tp, known_shape
from trainer.contract.presets import GROUPED, Advantage, Deviation, Estimate, Loss, Ratio, resolve_preset
from trainer.contract.reading import explain_validation_error, schema_paths
from trainer.contract.rewardnames import reward_name
from trainer.contract.runner import (
    Aggregation,
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    ExportConfig,
    LoraConfig,
    OptimizerConfig,
    ParsedRunner,
    Remat,
    RunnerConfig,
    with_origins,
)
from trainer.contract.violations import Spelling, Violation, shown

CONTRACT_VERSION: Literal[1] = 1
READABLE_VERSIONS = (1,)
"""The versions of run.json that this trainer reads: the current one and the one before."""

LOCAL_OUTPUT = "runs"
"""The resolved value of `output.uri: null`: a folder of the process's working directory."""


class UnreadableVersionError(RunError):
    """A run.json of a contract version that this trainer does not read."""

    def __init__(self, version: object) -> None:
        read = ", ".join(str(readable) for readable in READABLE_VERSIONS)
        super().__init__(
            ExitCode.CONTRACT_VERSION,
            f"schema_version: {shown(version)} must be one that this trainer reads, which is {read}; "
            "use the trainer image of the version that rendered the job",
        )


class InvalidRunConfigError(RunError):
    """A run.json that is no RunConfig; `violations` tells every fault."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(ExitCode.INVALID_CONFIG, "\n".join(str(violation) for violation in violations))
        self.violations = violations


class Resolved(BaseModel):
    """Frozen, unknown fields refused, strict types; JSON there and back is the identity."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", strict=True)


class Precision(Resolved):
    params: Literal["float32", "bfloat16"]
    compute: Literal["float32", "bfloat16"]
    remat: Remat


class Sampling(Resolved):
    global_length: int
    max_length_sample: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    stop: tuple[str, ...]


class Algorithm(Resolved):
    """A preset with its overrides, every number of it. None is `dual_clip` or `importance_cap` null, `overlong_buffer`
    0, `dynamic_sampling` 1.
    """

    advantage: Advantage
    deviation: Deviation
    loss: Loss
    ratio: Ratio
    epsilon_low: float
    epsilon_high: float
    dual_clip: float | None
    aggregation: Aggregation
    ppo_epochs: int
    beta: float
    kl: Estimate
    mask_truncated: bool
    overlong_buffer: int
    importance_cap: float | None
    dynamic_sampling: int
    on_non_finite: Literal["Fail", "Skip"]


class Reward(Resolved):
    """`name` labels the metric; `python` is `module:function`, or null for a built-in of that name."""

    name: str
    python: str | None
    weight: float
    args: dict[str, JsonValue]
    timeout_seconds: float


class RunConfig(Resolved):
    """Everything one run needs but its identity (process index, run id, attempt), which comes by environment."""

    schema_version: Literal[1]
    name: str
    model_path: str
    steps: int
    seed: int
    precision: Precision
    lora: LoraConfig | None
    data: DataConfig
    sampling: Sampling
    algorithm: Algorithm
    optimizer: OptimizerConfig
    rewards: tuple[Reward, ...]
    batch: BatchPlan
    eval_every_steps: int
    eval_batches: int | None
    eval_split: str
    eval: EvalConfig
    checkpoint: CheckpointConfig
    progress_deadline_seconds: int
    output_uri: str
    wandb_project: str | None
    wandb_name: str | None
    export: ExportConfig

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read run.json. Raises UnreadableVersionError or InvalidRunConfigError."""
        try:
            written = json.loads(text)
        except (ValueError, RecursionError) as error:
            fault = Violation("yaml", "", None, f"run.json is no JSON: {error}; render the job again")
            raise InvalidRunConfigError((fault,)) from error
        version = written.get("schema_version") if isinstance(written, dict) else None
        if isinstance(version, int) and not isinstance(version, bool) and version not in READABLE_VERSIONS:
            raise UnreadableVersionError(version)
        try:
            return cls.model_validate_json(text, by_name=True, by_alias=False)
        except ValidationError as error:
            raise InvalidRunConfigError(tuple(explain_validation_error(error, Spelling.RUNNER))) from error


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run will run on. `hosts` is per slice; processes = hosts x slices."""

    processes: int
    devices_per_process: int
    hosts: int
    slices: int
    kind: Literal["tpu", "cpu"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """A RunConfig, or every violation at once, in the order of the schema. `plan` alone may exist without `run`."""

    run: RunConfig | None
    plan: BatchPlan | None
    violations: tuple[Violation, ...]
    warnings: tuple[Violation, ...]


def resolve_run(parsed: ParsedRunner, machine: Machine, name: str, spelling: Spelling) -> Resolution:
    """Check every rule of the runner's tree on one machine; `parsed.violations` are part of the result."""
    request = batch_request(parsed, machine)
    outcome = resolve_batch(request, spelling)
    found = [_with_legal_values(violation, request, spelling) for violation in parsed.violations]
    found += check_tree(parsed, spelling)
    found += outcome.violations
    found += _model_faults(parsed, request, outcome.plan, spelling)
    violations = with_origins(_in_schema_order(found, spelling), parsed.origins, spelling)
    run = None
    if not violations and outcome.plan is not None:
        run = _resolved(parsed.config, outcome.plan, machine, name)
    warnings = with_origins(outcome.warnings, parsed.origins, spelling)
    return Resolution(run, outcome.plan, violations, warnings)


def batch_request(parsed: ParsedRunner, machine: Machine) -> BatchRequest:
    """The counts of a runner tree on one machine, with what could not be read marked as unknown."""
    config, rollout, train = parsed.config, parsed.config.rollout, parsed.config.train
    unknown = {field for field, path in PATHS.items() if not parsed.knows(path)}
    if not parsed.knows("algorithm.preset", "algorithm.advantage"):
        unknown.add("grouped")
    return BatchRequest(
        processes=machine.processes,
        devices_per_process=machine.devices_per_process,
        hosts=machine.hosts,
        slices=machine.slices,
        mesh_shape=config.mesh_shape,
        batch_size=rollout.batch_size,
        prompt_batch_size=rollout.prompt_batch_size,
        per_device_batch_size=rollout.per_device_batch_size,
        num_pre_q=rollout.num_pre_q,
        padding=rollout.padding,
        micro_batch_size=train.micro_batch_size,
        per_device_micro_batch_size=train.per_device_micro_batch_size,
        grad_accum_steps=train.grad_accum_steps,
        grouped=resolve_preset(config.algorithm).advantage in GROUPED,
        unknown=frozenset(unknown),
    )


def _with_legal_values(violation: Violation, request: BatchRequest, spelling: Spelling) -> Violation:
    """A number of the batch that is out of range or has a fraction: the nearest values that every rule accepts."""
    field = next((field for field, path in PATHS.items() if spelling.path(path) == violation.path), None)
    value = violation.value
    if field in (None, "mesh_shape", "padding") or isinstance(value, bool) or not isinstance(value, int | float):
        return violation
    if violation.rule not in ("type", "range") or value != value:
        return violation
    fallback = violation.message.partition("; ")[2]
    return violation.with_fix(suggested_fix(request, violation.rule, str(field), value, fallback))


def _model_faults(
    parsed: ParsedRunner, request: BatchRequest, plan: BatchPlan | None, spelling: Spelling
) -> list[Violation]:
    """The rules that need the model's shape, for hub ids of the bundled table."""
    config = parsed.config
    shape = known_shape(config.model_path) if config.model_path is not None and parsed.knows("model_path") else None
    if shape is None or config.model_path is None:
        return []
    found = []
    rollout = config.rollout
    if parsed.knows("rollout.global_length", "rollout.max_length_sample"):
        lengths = (rollout.global_length, rollout.max_length_sample)
        found.append(check_lengths(shape, config.model_path, *lengths, spelling))
    mesh = judge(request).mesh
    if mesh is not None:
        found.append(check_model_over_tp(shape, config.model_path, mesh, config.mesh_shape, spelling))
    return [violation for violation in found if violation is not None]


def _in_schema_order(violations: list[Violation], spelling: Spelling) -> list[Violation]:
    """Faults of the whole text, then by the place of the blamed field in the schema; unknown keys end a section."""
    ranks = {spelling.path(path): rank for path, rank in schema_paths(RunnerConfig).items()}

    def rank(violation: Violation) -> tuple[int, int]:
        path = re.sub(r"\[\d+\]", "", violation.path)
        if violation.rule == "yaml":
            return (-1, 0)
        if not path or path in ranks:
            return (ranks.get(path, -1), 0)
        section = path.rpartition(".")[0]
        inside = [at for known, at in ranks.items() if known.startswith(section + ".")]
        return (max(inside, default=len(ranks)), 1)

    return sorted(violations, key=rank)


def _resolved(config: RunnerConfig, plan: BatchPlan, machine: Machine, name: str) -> RunConfig:
    compute = config.precision.compute or ("float32" if machine.kind == "cpu" else "bfloat16")
    rollout = config.rollout
    return RunConfig(
        schema_version=CONTRACT_VERSION,
        name=name,
        model_path=str(config.model_path),
        steps=config.steps,
        seed=config.seed,
        precision=Precision(params=config.precision.params, compute=compute, remat=config.precision.remat),
        lora=config.lora,
        data=config.data,
        sampling=Sampling(
            global_length=rollout.global_length,
            max_length_sample=rollout.max_length_sample,
            temperature=rollout.temperature,
            top_k=rollout.top_k,
            top_p=rollout.top_p,
            min_p=rollout.min_p,
            stop=rollout.stop,
        ),
        algorithm=_resolved_algorithm(config),
        optimizer=config.optimizer,
        rewards=_resolved_rewards(config),
        batch=plan,
        eval_every_steps=config.eval_every_steps,
        eval_batches=config.eval_batches,
        eval_split=config.eval_split,
        eval=config.eval,
        checkpoint=config.checkpoint,
        progress_deadline_seconds=config.progress_deadline_seconds,
        output_uri=config.output.uri or LOCAL_OUTPUT,
        wandb_project=config.wandb_project,
        wandb_name=config.wandb_name,
        export=config.export,
    )


def _resolved_algorithm(config: RunnerConfig) -> Algorithm:
    preset, train = resolve_preset(config.algorithm), config.train
    return Algorithm(
        advantage=preset.advantage,
        deviation=preset.deviation,
        loss=preset.loss,
        ratio=preset.ratio,
        epsilon_low=preset.epsilon_low,
        epsilon_high=preset.epsilon_high,
        dual_clip=preset.dual_clip,
        aggregation=preset.aggregation,
        ppo_epochs=train.ppo_epochs,
        beta=train.beta,
        kl=preset.kl,
        mask_truncated=preset.mask_truncated,
        overlong_buffer=preset.overlong_buffer,
        importance_cap=preset.importance_cap,
        dynamic_sampling=preset.dynamic_sampling,
        on_non_finite=train.on_non_finite,
    )


def _resolved_rewards(config: RunnerConfig) -> tuple[Reward, ...]:
    weights = config.reward_weights or tuple(reward.weight for reward in config.rewards)
    return tuple(
        Reward(
            name=reward_name(reward.name, reward.python),
            python=reward.python,
            weight=weight,
            args=reward.args,
            timeout_seconds=reward.timeout_seconds,
        )
        for reward, weight in zip(config.rewards, weights, strict=True)
    )
