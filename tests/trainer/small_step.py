"""A small model, the plan of one step and plain GRPO: what the tests of the update and the bench begin from."""

import dataclasses
from typing import Any

from trainer.contract.batch import BatchPlan, Mesh
from trainer.contract.run import Algorithm
from trainer.model.config import ModelConfig

_MODEL = ModelConfig(
    model_type="qwen2",
    layers=2,
    hidden=32,
    intermediate=48,
    heads=4,
    kv_heads=4,
    head_dim=8,
    vocab=64,
    max_positions=64,
    rope_theta=10000.0,
    rms_eps=1e-6,
    tied=True,
    qkv_bias=True,
    qk_norm=False,
)
GRPO = Algorithm(
    advantage="grpo",
    deviation="population",
    loss="clip",
    ratio="token",
    epsilon_low=0.2,
    epsilon_high=0.2,
    dual_clip=None,
    aggregation="token-mean",
    ppo_epochs=1,
    beta=0.0,
    kl="k3",
    mask_truncated=False,
    overlong_buffer=0,
    importance_cap=None,
    dynamic_sampling=1,
    on_non_finite="Fail",
)


def model_of(**fields: Any) -> ModelConfig:
    return dataclasses.replace(_MODEL, **fields)


def plan_of(
    dp: int = 1,
    fsdp: int = 1,
    tp: int = 1,
    micro_steps: int = 1,
    *,
    rows: int = 8,
    group_size: int = 4,
    processes: int = 1,
) -> BatchPlan:
    """One pass of `rows` sequences over all processes and devices."""
    prompts = rows // group_size
    return BatchPlan(
        processes=processes,
        devices_per_process=dp * fsdp * tp // processes,
        hosts=processes,
        slices=1,
        mesh=Mesh(dp=dp, fsdp=fsdp, tp=tp),
        group_size=group_size,
        sequences_per_step=rows,
        prompts_per_step=prompts,
        prompts_per_pass_per_process=prompts // processes,
        passes=1,
        sequences_per_process=rows // processes,
        sequences_per_micro_step=rows // processes // micro_steps,
        micro_steps=micro_steps,
    )
