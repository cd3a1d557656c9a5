"""The runner's configuration tree: every key a user may write, with type, range and default.

One set of types serves two spellings: a runner YAML validates it by name (snake_case), a GRPOJob's `spec` by alias
(camelCase). Field order is the order in which violations are reported. Nothing here knows a cluster or JAX.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from trainer.contract.documents import dump_document, load_documents
from trainer.contract.judgement import MAX_BATCH, MAX_GROUP
from trainer.contract.reading import read_tree
from trainer.contract.section import (
    MAX_LENGTH,
    Args,
    Count,
    Finite,
    Fraction,
    Length,
    NonNegative,
    Prose,
    Section,
    Text,
)
from trainer.contract.violations import Spelling, Violation, shown

MAX_STEPS = 10_000_000
Aggregation = Literal[
    "token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum", "sequence-mean-token-sum-norm"
]
Remat = Literal["none", "products", "layer"]
LoraModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class PrecisionConfig(Section):
    params: Literal["float32", "bfloat16"] = Field(
        "float32", description="dtype of the weights; beside bfloat16 the optimizer keeps a float32 master"
    )
    compute: Literal["float32", "bfloat16"] | None = Field(None, description="null = bfloat16, float32 on CPU devices")
    remat: Remat = Field(
        "layer",
        description="what the backward pass computes again: nothing; each layer but its matrix products; each layer",
    )


class LoraConfig(Section):
    rank: Annotated[int, Field(gt=0, le=1024)] = Field(16, description="inner size of the adapters")
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        32.0, description="the adapters' output is scaled by alpha / rank"
    )
    target_modules: Annotated[tuple[LoraModule, ...], Field(min_length=1, max_length=32)] = Field(
        ("q_proj", "v_proj"), description="weights of each layer that get an adapter"
    )


class DataConfig(Section):
    train: Text = Field(
        "gsm8k", description="gsm8k; JSONL or parquet files; or a hub id owner/name[:config][@revision]"
    )
    eval: Text = Field("gsm8k", description="as train; of a hub id, eval_split is asked")
    prompt_field: Text = Field("question", description="column of a row that holds the prompt: text, or messages")
    answer_field: Text = Field(
        "answer", description="column that rewards compare with; what follows #### counts, where it has that"
    )
    system_prompt: Prose | None = Field(None, description="system turn before each prompt")
    prompt_template: Prose | None = Field(None, description="jinja2 over the row's columns; null = the prompt field")
    chat_template_kwargs: Args = Field(
        {}, description="variables of the model's chat template, such as enable_thinking: false for Qwen3"
    )
    overlong: Literal["drop", "truncate-left", "error"] = Field(
        "drop", description="what happens to a prompt longer than rollout.global_length tokens"
    )


class RolloutConfig(Section):
    backend: Literal["native"] = Field("native", description="the engine that samples completions")
    batch_size: Count | None = Field(
        None, description="global sequences per training step, over all processes; null = exactly one pass"
    )
    prompt_batch_size: Count | None = Field(None, description="prompts per rollout pass per process")
    per_device_batch_size: Count | None = Field(None, description="prompts per rollout pass per device")
    num_pre_q: Annotated[int, Field(gt=0, le=MAX_GROUP)] = Field(
        8, description="completions per prompt: the GRPO group"
    )
    padding: Literal["Reject", "RoundUp"] = Field(
        "Reject", description="a batch that does not divide: refused, or the smallest plan not below it"
    )
    global_length: Length = Field(512, description="longest prompt, in tokens")
    max_length_sample: Length = Field(512, description="longest completion, in tokens")
    temperature: Annotated[float, Field(gt=0.0, le=100.0)] = Field(
        1.0, description="softmax temperature; the loss uses the same"
    )
    top_k: Annotated[int, Field(ge=0, le=MAX_BATCH)] = Field(0, description="0 = off")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(1.0, description="1 = off")
    min_p: Fraction = Field(0.0, description="0 = off")
    stop: Annotated[tuple[Text, ...], Field(max_length=16)] = Field(
        (), description="strings that end a completion, beside the model's stop tokens"
    )


class AlgorithmConfig(Section):
    preset: Literal["grpo", "dr_grpo", "dapo", "rloo", "reinforce++", "gspo", "cispo"] = Field(
        "grpo", description="a named algorithm; the keys below override its numbers"
    )
    advantage: Literal["grpo", "dr_grpo", "rloo", "reinforce++"] | None = Field(None, description="null = the preset's")
    deviation: Literal["population", "sample"] | None = Field(
        None, description="what the advantage grpo divides by, with n or n - 1 below; null = population"
    )
    ratio: Literal["token", "sequence"] | None = Field(
        None, description="a ratio of probabilities for each token, or one for a whole completion; null = the preset's"
    )
    epsilon_low: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="the ratio is clipped at 1 - epsilon_low; null = the preset's, 0.2 for grpo"
    )
    epsilon_high: Annotated[float, Field(gt=0.0, le=100.0)] | None = Field(
        None, description="and at 1 + epsilon_high, for cispo too (TRL's is 1 more); null = the preset's, 0.2 for grpo"
    )
    dual_clip: Annotated[float, Field(gt=1.0, le=1000.0)] | None = Field(
        None, description="largest ratio that counts for completions with a negative advantage; null = no bound"
    )
    aggregation: Aggregation | None = Field(
        None, description="over the whole batch; norm divides by max_length_sample too; null = the preset's"
    )
    kl: Literal["k1", "k2", "k3"] | None = Field(
        None, description="estimator of the divergence that train.beta weighs; null = the preset's"
    )
    mask_truncated: bool | None = Field(
        None, description="completions that were cut off do not enter the loss; null = the preset's"
    )
    overlong_buffer: Annotated[int, Field(ge=0, le=MAX_LENGTH)] | None = Field(
        None, description="last tokens of the longest completion over which the reward falls by 1; null or 0 = off"
    )
    importance_cap: Annotated[float, Field(ge=1.0, le=1000.0)] | None = Field(
        None,
        description="largest weight of a token, its probability in the update over that in the rollout; null = off",
    )
    dynamic_sampling: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="rounds a step may ask to replace groups without variance; 1 = off; null = the preset's"
    )


class TrainConfig(Section):
    micro_batch_size: Count | None = Field(None, description="sequences per process per micro-step of the update")
    per_device_micro_batch_size: Count | None = Field(None, description="sequences per device per micro-step")
    grad_accum_steps: Count | None = Field(None, description="micro-steps of one update; normally left out: derived")
    ppo_epochs: Annotated[int, Field(gt=0, le=64)] = Field(1, description="updates on each batch of completions")
    beta: NonNegative = Field(0.0, description="weight of the divergence from the reference model in the loss")
    on_non_finite: Literal["Fail", "Skip"] = Field(
        "Fail", description="a loss or gradient that is not finite ends the run, or leaves the step out"
    )


class OptimizerConfig(Section):
    name: Literal["adamw", "lion", "sgd"] = Field("adamw", description="optax's optimizer of that name")
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] = Field(1.0e-6, description="the rate after warm-up")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="how the rate falls after warm-up, down to 0 after the last update; constant: not at all",
    )
    warmup_steps: Annotated[int, Field(ge=0, le=MAX_BATCH)] = Field(
        0, description="updates over which the rate rises; the first is above 0"
    )
    weight_decay: NonNegative = Field(0.0, description="decoupled; spares norms and biases")
    clip_norm: NonNegative = Field(1.0, description="longest gradient, as a global norm; 0 = not clipped")


class RewardConfig(Section):
    name: Text | None = Field(None, description="a built-in reward: correct, format or tags")
    python: Text | None = Field(None, description="package.module:function with TRL's signature")
    weight: Finite = Field(1.0, description="weight in the total reward")
    args: Args = Field({}, description="further keyword arguments of the function")
    timeout_seconds: Annotated[float, Field(gt=0.0, le=3600.0)] = Field(
        30.0, description="for one call on the completions of a pass; later is unscorable"
    )


class EvalConfig(Section):
    samples: Annotated[int, Field(gt=0, le=MAX_GROUP)] = Field(
        1, description="answers to each question; above 1, pass@k and maj@k are told for k = 1, 2, 4 …"
    )
    temperature: Annotated[float, Field(ge=0.0, le=100.0)] = Field(
        0.0, description="0 = greedy; above, sampled as in training but at this temperature"
    )


class InitFromConfig(Section):
    uri: Text = Field(description="the folder of another run, or RUN/checkpoints/STEP")
    step: Annotated[int, Field(ge=0, le=MAX_STEPS)] | None = Field(None, description="null = its newest checkpoint")
    restore: Literal["Weights", "All"] = Field(
        "Weights", description="All: the moments of its optimizer too; steps, data and learning rate begin anew"
    )


class CheckpointConfig(Section):
    every_steps: Annotated[int, Field(ge=0, le=MAX_BATCH)] = Field(0, description="0 = off")
    every_minutes: Annotated[int, Field(ge=0, le=MAX_BATCH)] = Field(
        0, description="0 = off; after the step during which so many have passed since the last save"
    )
    keep: Annotated[int, Field(gt=0, le=1000)] = Field(2, description="newest checkpoints that stay")
    best: Text | None = Field(
        None, description="a metric of evaluations, the higher the better: the best evaluated step is saved, and stays"
    )
    resume: Literal["Auto", "Never"] = Field("Auto", description="Never starts at step 0 in the same folder")
    init_from: InitFromConfig | None = Field(None, description="another run, whose weights this one begins with")

    @property
    def saves(self) -> bool:
        """Whether checkpoints are made while nothing asks the run to stop."""
        return self.every_steps > 0 or self.every_minutes > 0 or self.best is not None


class OutputConfig(Section):
    uri: Text | None = Field(None, description="the parent of run folders; null = runs/ in the working folder")


class ExportConfig(Section):
    when: Literal["Never", "OnSuccess"] = Field(
        "Never", description="OnSuccess: a finished run writes its model to export/, as a Hugging Face folder"
    )
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="dtype of the weights written")


DEFAULT_REWARDS = (
    RewardConfig(name="correct", weight=1.0),
    RewardConfig(name="format", weight=0.5),
    RewardConfig(name="tags", weight=0.5),
)


class RunnerConfig(Section):
    """The whole tree, as `--print-config` prints it."""

    model_path: Text | None = Field(None, description="hub id[@revision], folder or gs://; required by a run")
    steps: Annotated[int, Field(gt=0, le=MAX_STEPS)] = Field(
        100, description="training steps: rollouts with their update"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        0, description="of the order of the data and of sampling; the same on any number of devices"
    )
    precision: PrecisionConfig = PrecisionConfig()
    lora: LoraConfig | None = None
    data: DataConfig = DataConfig()
    rollout: RolloutConfig = RolloutConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    rewards: Annotated[tuple[RewardConfig, ...], Field(min_length=1, max_length=32)] = DEFAULT_REWARDS
    reward_weights: Annotated[tuple[Finite, ...], Field(max_length=32)] | None = Field(
        None, description="short for the weights of rewards, in their order"
    )
    mesh_shape: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        "auto", description="dp,fsdp,tp, such as 1,-1,1; auto = dp over slices, fsdp over the rest"
    )
    eval_every_steps: Annotated[int, Field(ge=0, le=MAX_BATCH)] = Field(
        0, description="0 = off; else before the first step, every so many and after the last"
    )
    eval_batches: Count | None = Field(None, description="null = the whole split")
    eval_split: Text = Field("test", description="split of a named dataset")
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    progress_deadline_seconds: Annotated[int, Field(gt=0, le=604_800)] = Field(
        1800, description="seconds without any finished unit of work after which a process is stalled"
    )
    output: OutputConfig = OutputConfig()
    export: ExportConfig = ExportConfig()
    wandb_project: Text | None = Field(None, description="project in Weights & Biases")
    wandb_name: Text | None = Field(None, description="name of the run there")


REASONS = {
    "train.max_length_total": (
        "did nothing in the original runner: prompts are bounded by rollout.global_length and completions by "
        "rollout.max_length_sample; remove it"
    ),
}
"""Keys of the original runner that are refused with a reason of their own."""


@dataclass(frozen=True, slots=True)
class ParsedRunner:
    """A runner tree as far as it could be read.

    A refused key keeps its default in `config`, and its dotted snake_case path stands in `unknown`, so that no later
    rule rests on it. `origins` tells where a value came from, by dotted path: `{"rollout.batch_size": "--set"}`.
    """

    config: RunnerConfig
    unknown: frozenset[str]
    violations: tuple[Violation, ...]
    origins: Mapping[str, str] = field(default_factory=dict)

    def knows(self, *paths: str) -> bool:
        """Whether all paths, and the sections that they lie in, were read."""
        return not any(path == lost or path.startswith(lost + ".") for path in paths for lost in self.unknown)


def parse_runner(
    data: Any, spelling: Spelling, origins: Mapping[str, str] | None = None, *, also_known: Iterable[str] = ()
) -> ParsedRunner:
    """Read a runner tree in one spelling. `also_known` are sibling keys at the top that a typo may have meant."""
    tree = read_tree(RunnerConfig, data, spelling, reasons=REASONS, also_known=also_known)
    config = tree.value if tree.value is not None else RunnerConfig()
    violations = with_origins(tree.violations, origins or {}, spelling)
    return ParsedRunner(config, tree.refused, violations, dict(origins or {}))


def with_origins(
    violations: Iterable[Violation], origins: Mapping[str, str], spelling: Spelling
) -> tuple[Violation, ...]:
    """Violations of values that did not come from the file say where they came from."""

    def told(violation: Violation) -> Violation:
        for dotted, origin in origins.items():
            note = f" (the value came from {origin})"
            if _touches(violation, dotted, spelling) and not violation.message.endswith(note):
                return replace(violation, message=violation.message + note)
        return violation

    return tuple(told(violation) for violation in violations)


def _touches(violation: Violation, dotted: str, spelling: Spelling) -> bool:
    """Whether a value set at `dotted` is at fault: at the path itself, below it, or as an unknown key above it."""
    for path in (spelling.path(dotted), dotted):
        if violation.path == path or violation.path.startswith((path + ".", path + "[")):
            return True
        if violation.rule == "unknown-key" and violation.path and path.startswith(violation.path + "."):
            return True
    return False


def merge(text: str | None, sets: Iterable[str], source: str = "config") -> ParsedRunner:
    """A runner YAML (None = nothing but defaults) with `--set path=value` laid over it, later ones over earlier."""
    data, faults = _read_file(text, source)
    origins: dict[str, str] = {}
    for assignment in sets:
        fault = _lay_over(data, assignment)
        if fault is None:
            origins[assignment.partition("=")[0].strip()] = "--set"
        else:
            faults.append(fault)
    parsed = parse_runner(data, Spelling.RUNNER, origins)
    unknown = frozenset(RunnerConfig.model_fields) if faults else parsed.unknown
    return ParsedRunner(parsed.config, unknown, (*faults, *parsed.violations), origins)


def _read_file(text: str | None, source: str) -> tuple[dict[str, Any], list[Violation]]:
    documents = [] if text is None else load_documents(text, source)
    violations = [violation for document in documents for violation in document.violations]
    full = [document for document in documents if document.data is not None]
    if len(documents) > 1 and not violations and len(full) > 1:
        violations.append(Violation("yaml", "", None, f"{source} holds {len(full)} documents; keep one"))
    data = full[0].data if full else {}
    if not isinstance(data, dict):
        message = f"{source} holds {shown(data)}, and a configuration is a mapping; write `key: value` lines"
        violations.append(Violation("type", "", data, message))
        data = {}
    return data, violations


def _lay_over(data: dict[str, Any], assignment: str) -> Violation | None:
    """Put one `a.b=value` into the tree; the value is read as YAML."""
    path, equals, written = assignment.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        return Violation("yaml", "--set", assignment, f"{shown(assignment)} must be path=value; write --set a.b=c")
    documents = load_documents(written, f"--set {path.strip()}")
    if faults := [violation for document in documents for violation in document.violations]:
        return faults[0]
    for key in keys[:-1]:
        if data.get(key) is None:
            data[key] = {}
        if not isinstance(data[key], dict):
            message = f"{shown(assignment)} goes below {key}, which is no mapping; set {key} as a whole"
            return Violation("yaml", "--set", assignment, message)
        data = data[key]
    data[keys[-1]] = documents[0].data if documents else None
    return None


def dump_yaml(config: RunnerConfig) -> str:
    """The whole tree as YAML in ASCII, every key in the order of the schema; read again it gives the same tree."""
    plain = config.model_dump(mode="json")
    if config.reward_weights is not None and len(config.reward_weights) == len(config.rewards):
        for reward, weight in zip(plain["rewards"], config.reward_weights, strict=True):
            reward["weight"] = weight
    return dump_document(plain)
