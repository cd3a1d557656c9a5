"""TRL's reference cases as algorithms of a run."""

from typing import Any

from trainer.contract.run import Algorithm

AGGREGATIONS = {
    "grpo": "sequence-mean-token-mean",
    "bnpo": "token-mean",
    "dr_grpo": "sequence-mean-token-sum-norm",
    "dapo": "token-mean",
    "cispo": "token-mean",
}


def algorithm_of(case: dict[str, Any]) -> Algorithm:
    """TRL's `epsilon_high` is CISPO's bound itself, and ours lies 1 below it."""
    is_cispo = case["loss_type"] == "cispo"
    return Algorithm(
        advantage="grpo",
        deviation="population",
        loss="cispo" if is_cispo else "clip",
        ratio=case["level"],
        epsilon_low=case["epsilon_low"],
        epsilon_high=case["epsilon_high"] - (1.0 if is_cispo else 0.0),
        dual_clip=case["delta"],
        aggregation=AGGREGATIONS[case["loss_type"]],
        ppo_epochs=1,
        beta=case["beta"],
        kl="k3",
        mask_truncated=False,
        overlong_buffer=0,
        importance_cap=None,
        dynamic_sampling=1,
        on_non_finite="Fail",
    )
