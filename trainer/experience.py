"""One step's experience: the completions of all its passes, with rewards, on every process alike.

In: parameters and the questions of the step. Out: this process's completions, and numbers of all rows everywhere.
It refuses to know what the update does with them.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.asking import Answers, Asker, Call
from trainer.contract.batch import BatchPlan
from trainer.data import Question
from trainer.distributed import gather
from trainer.grpo.advantages import differing
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

    def take(self, rows: NDArray[np.int64]) -> "Table":
        """The numbers of these rows, in their order."""
        return Table(*(getattr(self, field.name)[..., rows] for field in fields(self)))

    def differing(self, group_size: int) -> NDArray[np.bool_]:
        """[prompt]: the groups in which two total rewards differ."""
        groups = self.totals.reshape(-1, group_size)
        return differing(groups, np.isfinite(groups))


@dataclass(frozen=True, slots=True)
class Experience:
    """`answers` and `scores` are this process's, pass by pass; `questions` are those of all processes, in the order in
    which the table has their rows.
    """

    answers: list[Answers]
    scores: list[Scores]
    table: Table
    questions: list[Question]

    @property
    def totals(self) -> NDArray[np.float64]:
        """The total rewards of this process, in local order."""
        return np.concatenate([scores.totals for scores in self.scores])


class Round(NamedTuple):
    """As many questions as a step has prompts, in their order, and how they are asked."""

    questions: list[Question]
    call: Call


def slots_of(number: int, process: int, plan: BatchPlan) -> range:
    """The numbers in the step of the prompts that one process asks in pass `number`: slots follow the processes."""
    size = plan.prompts_per_pass_per_process
    first = (number * plan.processes + process) * size
    return range(first, first + size)


def collect(
    asker: Asker,
    params: Any,
    ask: Callable[[int], Round],
    plan: BatchPlan,
    process: int,
    watch: Stopwatch,
    pause: Callable[[], None],
    *,
    most_rounds: int = 1,
) -> Experience:
    """Ask round 0 of the step, in passes, and of further rounds as many passes as it takes until as many groups differ
    as a step has prompts. `pause` is called after each pass, and may raise Stopped.

    How questions are padded is the same in all passes of a round, so that a plan with more passes samples the same.
    """
    answers, scores, columns, questions = [], [], [], []
    for number in range(plan.passes * most_rounds):
        if number % plan.passes == 0:
            asked, call = ask(number // plan.passes)
            questions += asked
        slots = slots_of(number, process, plan)
        with watch.phase("rollout"):
            answers.append(asker.generate(params, [questions[slot] for slot in slots], list(slots), call))
        with watch.phase("rewards"):
            scores.append(asker.score(answers[-1], call.step - 1))
        pause()  # scores that a request to stop cut short end here
        columns.append(gather(_columns(answers[-1], scores[-1])).reshape(-1, 4 + 2 * len(scores[-1].names)))
        table = _table(np.concatenate(columns), len(scores[-1].names))
        if table.differing(plan.group_size).sum() >= plan.prompts_per_step:
            break
    return Experience(answers, scores, table, questions[: len(table.totals) // plan.group_size])


def _table(rows: NDArray[np.float64], rewards: int) -> Table:
    table = rows.T
    return Table(table[0], table[1], table[2] > 0, table[3], table[4 : 4 + rewards], table[4 + rewards :] > 0)


def _columns(answers: Answers, scores: Scores) -> NDArray[np.float64]:
    """[row, number]: what `_table` takes apart."""
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
