"""The demo's control: its own rewards, dealt out to the wrong completions. What learns from them learns from noise.

PYTHONPATH=. grpoctl run examples/demo/job.yaml --set 'rewards=[{python: "examples.demo.control:shuffled"},
    {name: correct, weight: 0}, {name: format, weight: 0}]'
"""

import random
from typing import Any

from trainer.rewards.answers import answer_in, judged_by_number
from trainer.rewards.builtin import format_reward


def shuffled(completions: list[str], answer: list[str], trainer_state: Any, **_: Any) -> list[float]:
    """The job's total rewards in another order, anew for each step: as many are high, and none is deserved."""
    totals = [earned(text, gold) for text, gold in zip(completions, answer, strict=True)]
    random.Random(trainer_state.global_step).shuffle(totals)
    return totals


def earned(completion: str, gold: str) -> float:
    """What the job's rewards give: 0.8 for the right answer, 0.2 for the format."""
    return 0.8 * bool(judged_by_number(gold, answer_in(completion))) + 0.2 * format_reward(completion)
