"""The ready runner configurations in `configs/runs`."""

from pathlib import Path

import pytest

from trainer.contract.run import Machine, resolve_run
from trainer.contract.runner import merge
from trainer.contract.violations import Spelling

FOLDER = Path(__file__).parents[2] / "configs" / "runs"

MACHINES = {
    "grpo_gsm8k_bs128_steps100.yaml": [((1, 8), (128, 16, 1, 8)), ((4, 4), (128, 4, 1, 2))],
    "grpo_gsm8k_qwen2.5_0.5b_one_host.yaml": [((1, 4), (64, 4, 2, 4))],
    "grpo_gsm8k_qwen3_4b_per_device.yaml": [((8, 4), (256, 4, 1, 4)), ((1, 4), (32, 4, 1, 4))],
    "grpo_gsm8k_smollm2_135m_cpu.yaml": [((1, 1), (8, 2, 1, 2)), ((2, 2), (16, 2, 1, 1))],
}
"""For each file and machine (P, L): sequences per step, prompts per pass, passes, micro-steps, as its comments say."""


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*.yaml")))
def test_a_ready_configuration_resolves_on_the_machines_it_names(file: str) -> None:
    """Every file in configs/runs is accepted on its machines, with the plan that it promises."""
    parsed = merge((FOLDER / file).read_text(encoding="utf-8"), [], file)
    assert parsed.violations == ()
    for (processes, devices), expected in MACHINES[file]:
        machine = Machine(processes, devices, hosts=processes, slices=1, kind="tpu")
        resolution = resolve_run(parsed, machine, "ready", Spelling.RUNNER)
        assert resolution.violations == ()
        plan = resolution.plan
        assert plan is not None
        numbers = (plan.sequences_per_step, plan.prompts_per_pass_per_process, plan.passes, plan.micro_steps)
        assert numbers == expected
    prompt = parsed.config.data.system_prompt or ""
    assert all(tag in prompt for tag in ("<think>", "</think>", "<answer>", "</answer>")), "rewarded, and not asked for"


def test_the_well_known_configuration_derives_its_accumulation() -> None:
    """Batch 128 with K 8 for 100 steps is written without grad_accum_steps."""
    config = merge((FOLDER / "grpo_gsm8k_bs128_steps100.yaml").read_text(encoding="utf-8"), []).config
    assert (config.steps, config.rollout.batch_size, config.rollout.num_pre_q) == (100, 128, 8)
    assert config.train.grad_accum_steps is None
