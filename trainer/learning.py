"""From a step's experience to its update: advantages of all completions, and the rows that this process trains on.

In: an `Experience`. Out: `TrainRow`s in local order. It refuses to know how they are laid over devices.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.contract.batch import BatchPlan
from trainer.contract.run import Algorithm
from trainer.experience import Experience
from trainer.grpo.advantages import batch_advantages, group_advantages
from trainer.update import TrainRow


def train_rows(found: Experience, plan: BatchPlan, process: int, algorithm: Algorithm) -> list[TrainRow]:
    """The local rows with their advantages. An unscorable row teaches nothing: its tokens are left out."""
    everywhere = step_advantages(found.table.totals, plan.group_size, algorithm)
    advantages = local_rows(everywhere, plan, process)
    trained = np.isfinite(found.totals)
    if algorithm.mask_truncated:
        trained &= np.concatenate([answers.finished for answers in found.answers])
    asked = [(q, ids) for answers in found.answers for q, ids in zip(answers.questions, answers.token_ids, strict=True)]
    rows = zip(asked, advantages, trained, strict=True)
    return [TrainRow(question.token_ids, ids, float(a), bool(t)) for (question, ids), a, t in rows]


def step_advantages(totals: NDArray[np.float64], group_size: int, algorithm: Algorithm) -> NDArray[np.float32]:
    """Advantages [row] of all rows of the step from their `totals` [row], NaN where unscorable; group by group."""
    rewards = totals.reshape(-1, group_size)
    scored = np.isfinite(rewards)
    if algorithm.advantage == "reinforce++":
        return batch_advantages(rewards, scored).ravel()
    ddof = 1 if algorithm.deviation == "sample" else 0
    return group_advantages(rewards, scored, estimator=algorithm.advantage, ddof=ddof).ravel()


def local_rows(values: NDArray[np.float32], plan: BatchPlan, process: int) -> NDArray[np.float32]:
    """Of values [row] in the step's global order, those of one process, pass by pass."""
    return values.reshape(plan.passes, plan.processes, -1)[:, process].ravel()
