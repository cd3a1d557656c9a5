"""The resolved run: what the launcher hands to every process, with nothing left to decide.

`resolve_run` takes the parsed runner tree and the machine it will run on, and returns a RunConfig or all violations.
"""

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trainer.contract.batch import BatchPlan
from trainer.contract.runner import CheckpointConfig, DataConfig, EvalConfig, OptimizerConfig

CONTRACT_VERSION = 1


class Resolved(BaseModel):
    """Frozen, unknown fields refused, strict types; JSON there and back is the identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Precision(Resolved):
    params: Literal["float32", "bfloat16"]
    compute: Literal["float32", "bfloat16"]
    remat: Literal["none", "layer"]


class Sampling(Resolved):
    global_length: int
    max_length_sample: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    stop: tuple[str, ...]


class Algorithm(Resolved):
    advantage: Literal["grpo", "dr_grpo", "rloo", "reinforce++"]
    epsilon_low: float
    epsilon_high: float
    aggregation: Literal["token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum"]
    ppo_epochs: int
    beta: float
    kl: Literal["k1", "k2", "k3"]
    mask_truncated: bool
    on_non_finite: Literal["Fail", "Skip"]


class Reward(Resolved):
    """`name` labels the metric; `python` is `module:function`, or null for a built-in of that name."""

    name: str
    python: str | None
    weight: float
    args: dict[str, Any]
    timeout_seconds: float


class RunConfig(Resolved):
    """Everything one run needs but its identity (process index, run id, attempt), which comes by environment."""

    schema_version: Annotated[Literal[1], Field()] = CONTRACT_VERSION
    name: str
    model_path: str
    steps: int
    seed: int
    precision: Precision
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

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"

    @property
    def sha256(self) -> str:
        """The digest of the JSON text; its first eight digits name a run that has no Kubernetes UID."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
