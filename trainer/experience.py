"""One step's experience: the completions of all its passes, with rewards and advantages, on every process alike.

In: parameters and the questions of the step. Out: this process's rows to train on, and numbers of all rows everywhere.
It refuses to know what the update does with them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.asking import Answers, Asker, Call, prompt_bucket
from trainer.contract.batch import BatchPlan
from trainer.data import Question
from trainer.distributed import gather
from trainer.metrics import Row, group_row, reward_row, statistics
from trainer.progress import Stopwatch
from trainer.rewards import Scores


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers of all rows of the step, in its global order: [row], [reward, row]. The same on every process."""

    prompt_tokens: NDArray[np.float64]
    completion_tokens: NDArray[np.float64]
    finished: NDArray[np.bool_]
    totals: NDArray[np.float64]
    values: NDArray[np.float64]
    failed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Experience:
    """`answers` and `scores` are this process's, pass by pass; `prompt_bucket` is the padded length of all prompts."""

    answers: list[Answers]
    scores: list[Scores]
    table: Table
    prompt_bucket: int

    @property
    def totals(self) -> NDArray[np.float64]:
        """The total rewards of this process, in local order."""
        return np.concatenate([scores.totals for scores in self.scores])


def slots_of(number: int, process: int, plan: BatchPlan) -> range:
    """The numbers in the step of the prompts that one process asks in pass `number`: slots follow the processes."""
    size = plan.prompts_per_pass_per_process
    first = (number * plan.processes + process) * size
    return range(first, first + size)


def collect(
    asker: Asker,
    params: Any,
    questions: Sequence[Question],
    plan: BatchPlan,
    process: int,
    call: Call,
    watch: Stopwatch,
    stops: Callable[[], bool],
) -> Experience | None:
    """Ask the `questions` of the step, in passes; None where all processes agreed to stop between two of them."""
    answers, scores = [], []
    for number in range(plan.passes):
        if number and stops():
            return None
        slots = slots_of(number, process, plan)
        with watch.phase("rollout"):
            answers.append(asker.generate(params, [questions[slot] for slot in slots], list(slots), call))
        with watch.phase("rewards"):
            scores.append(asker.score(answers[-1], call.step - 1))
    return Experience(answers, scores, _table(answers, scores, plan), call.prompt_bucket)


def call_for(questions: Sequence[Question], plan: BatchPlan, step: int, seed: int, longest_prompt: int) -> Call:
    return Call(step, seed, prompt_bucket(questions, longest_prompt), samples=plan.group_size)


def _table(answers: list[Answers], scores: list[Scores], plan: BatchPlan) -> Table:
    """Gather [process, pass, row of a pass] and lay it out pass by pass: the order of the step's prompts."""
    local = np.stack([_columns(answer, score) for answer, score in zip(answers, scores, strict=True)])
    everywhere = gather(local).swapaxes(0, 1).reshape(plan.sequences_per_step, -1)
    table = np.asarray(everywhere, np.float64).T
    rewards = len(scores[0].names)
    return Table(table[0], table[1], table[2] > 0, table[3], table[4 : 4 + rewards], table[4 + rewards :] > 0)


def _columns(answers: Answers, scores: Scores) -> NDArray[np.float64]:
    prompts = [len(question.token_ids) for question in answers.questions]
    completions = [len(ids) for ids in answers.token_ids]
    columns = [prompts, completions, answers.finished, scores.totals, *scores.values, *scores.failed]
    return np.array(columns, np.float64).T


def table_row(table: Table, names: tuple[str, ...], group_size: int) -> Row:
    """What a step's rows tell: rewards, equal groups, lengths, the share that was cut off."""
    row = reward_row(names, table.values, table.failed, table.totals) | group_row(table.totals, group_size)
    row |= statistics("length/prompt", table.prompt_tokens, "mean", "max")
    row |= statistics("length/completion", table.completion_tokens, "mean", "max")
    row["length/truncated"] = float(np.mean(~table.finished))
    row |= {"finish/stop": float(np.mean(table.finished)), "finish/length": row["length/truncated"]}
    return row
