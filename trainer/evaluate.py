"""Evaluation: every question of the split once over all processes, greedily; means of the rewards go out."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.asking import Answers, Asker, Call, prompt_bucket
from trainer.contract.batch import BatchPlan
from trainer.data import Question
from trainer.distributed import gather
from trainer.metrics import Row, reward_row, statistics
from trainer.rewards import Scores


def batches_of(questions: int, plan: BatchPlan, limit: int | None) -> list[range]:
    """Numbers of the questions of each batch: as many as a training pass has rows, the last one shorter."""
    size = plan.processes * rows_per_process(plan)
    starts = range(0, questions, size)
    return [range(start, min(start + size, questions)) for start in starts][:limit]


def rows_per_process(plan: BatchPlan) -> int:
    return plan.prompts_per_pass_per_process * plan.group_size


def share_of(batch: range, process: int, plan: BatchPlan) -> range:
    """The part of a batch that one process asks; at the end of the split it may be empty."""
    size = rows_per_process(plan)
    return batch[process * size : (process + 1) * size]


class Evaluation:
    """One split asked again and again; `folder` is where each process writes what was answered."""

    def __init__(
        self, asker: Asker, questions: Sequence[Question], plan: BatchPlan, process: int, folder: Path
    ) -> None:
        self._asker = asker
        self._questions = questions
        self._plan = plan
        self._process = process
        self._folder = folder

    def run(
        self, params: Any, step: int, longest_prompt: int, limit: int | None, interrupted: Callable[[], bool]
    ) -> Row | None:
        """`eval/…` metrics over the first `limit` batches (None: all), or None where it was interrupted.

        `interrupted` is asked after each batch, and must give all processes the same answer.
        """
        batches = batches_of(len(self._questions), self._plan, limit)
        call = Call(
            step=step,
            seed=0,
            prompt_bucket=prompt_bucket([self._questions[i] for batch in batches for i in batch], longest_prompt),
            samples=1,
            greedy=True,
            prompts_per_process=rows_per_process(self._plan),
        )
        tables = []
        for number, batch in enumerate(batches):
            share = share_of(batch, self._process, self._plan)
            answers = self._asker.generate(params, [self._questions[i] for i in share], list(share), call)
            scores = self._asker.score(answers)
            self._write(step, share, answers, scores, first=number == 0)
            tables.append(gather(_padded_table(share, answers, scores, rows_per_process(self._plan))))
            if interrupted():
                return None
        return _summary(self._asker.reward_names, np.concatenate(tables, axis=1))

    def _write(self, step: int, share: range, answers: Answers, scores: Scores, *, first: bool) -> None:
        path = self._folder / f"step-{step:08d}" / f"process-{self._process}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if first else "a") as file:
            for row, number in enumerate(share):
                file.write(json.dumps(answer_record(answers, scores, row) | {"question": number}) + "\n")


def answer_record(answers: Answers, scores: Scores, row: int) -> dict[str, Any]:
    """One row as people read it: texts, rewards by name (null where there is none), total, length."""
    rewards = dict(zip(scores.names, map(_or_none, scores.values[:, row]), strict=True))
    return {
        "prompt": answers.questions[row].text,
        "completion": answers.texts[row],
        "rewards": rewards,
        "total": _or_none(scores.totals[row]),
        "tokens": len(answers.token_ids[row]),
        "finished": bool(answers.finished[row]),
    }


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _padded_table(share: range, answers: Answers, scores: Scores, rows: int) -> NDArray[np.float64]:
    """[row, column] of one size on every process: question (-1: no row), length, finished, total, values, failed."""
    lengths = [len(ids) for ids in answers.token_ids]
    columns = [list(share), lengths, answers.finished, scores.totals, *scores.values, *scores.failed]
    table = np.full((rows, len(columns)), -1.0)
    table[: len(share)] = np.array(columns, np.float64).T
    return table


def _summary(names: tuple[str, ...], tables: NDArray[np.generic]) -> Row:
    """Means in the order of the questions, so that they do not depend on the number of processes."""
    table = np.asarray(tables, np.float64).reshape(-1, tables.shape[-1])
    table = table[table[:, 0] >= 0]
    table = table[np.argsort(table[:, 0])]
    values, failed = table[:, 4 : 4 + len(names)].T, table[:, 4 + len(names) :].T > 0
    row = reward_row(names, values, failed, table[:, 3])
    row |= statistics("length/completion", table[:, 1], "mean")
    row["length/truncated"] = float(np.mean(table[:, 2] == 0))
    row["questions"] = len(table)
    return {f"eval/{name}": value for name, value in row.items()}
