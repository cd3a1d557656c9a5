"""Evaluation: every question of the split once over all processes, greedily or in n samples; numbers go out."""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.asking import Answers, Asker, Call, prompt_bucket
from trainer.contract.batch import BatchPlan
from trainer.contract.runner import EvalConfig
from trainer.data import QuestionSet
from trainer.distributed import gather
from trainer.metrics import Row, reward_row, statistics
from trainer.rewards import Scores
from trainer.rewards.answers import vote_of
from trainer.solving import NO_VOTE, solved_row

log = logging.getLogger("trainer")

_SEED_STEP = 0
"""Sampling's step for all evaluations: training begins at 1, so no draw is shared; and two evaluations of a run use the
same draws, so that they differ by the parameters alone."""


def batches_of(questions: int, plan: BatchPlan, limit: int | None, samples: int = 1) -> list[range]:
    """Numbers of the questions of each batch: as many rows as a training pass has, the last one shorter."""
    size = plan.processes * questions_per_process(plan, samples)
    starts = range(0, questions, size)
    return [range(start, min(start + size, questions)) for start in starts][:limit]


def questions_per_process(plan: BatchPlan, samples: int = 1) -> int:
    return max(1, plan.prompts_per_pass_per_process * plan.group_size // samples)


def share_of(batch: range, process: int, plan: BatchPlan, samples: int = 1) -> range:
    """The part of a batch that one process asks; at the end of the split it may be empty."""
    size = questions_per_process(plan, samples)
    return batch[process * size : (process + 1) * size]


@dataclass(frozen=True, slots=True)
class Exam:
    """How a run is examined: the split, how each question is asked, and where what was answered is kept."""

    questions: QuestionSet
    way: EvalConfig
    seed: int
    plan: BatchPlan
    process: int
    folder: Path


class Evaluation:
    """One split asked again and again; each process writes what it was answered, process 0 the results."""

    def __init__(self, asker: Asker, exam: Exam) -> None:
        self._asker = asker
        self._exam = exam

    def run(self, params: Any, step: int, longest_prompt: int, limit: int | None, pause: Callable[[], None]) -> Row:
        """`eval/…` metrics over the first `limit` batches, or all. `pause` is called in each, and may raise Stopped."""
        exam, samples, questions = self._exam, self._exam.way.samples, self._exam.questions.questions
        batches = batches_of(len(questions), exam.plan, limit, samples)
        call = Call(
            step=_SEED_STEP,
            seed=exam.seed,
            prompt_bucket=prompt_bucket([questions[i] for batch in batches for i in batch], longest_prompt),
            samples=samples,
            greedy=exam.way.temperature == 0,
            prompts_per_process=questions_per_process(exam.plan, samples),
        )
        tables: list[NDArray[np.generic]] = []
        faults: dict[str, str] = {}
        for number, batch in enumerate(batches):
            share = share_of(batch, exam.process, exam.plan, samples)
            answers = self._asker.generate(params, [questions[i] for i in share], list(share), call)
            scores = self._asker.score(answers, step)
            pause()
            faults |= scores.errors
            self._write(step, share, answers, scores, first=number == 0)
            rows = questions_per_process(exam.plan, samples) * samples
            tables.append(gather(_padded_table(share, samples, answers, scores, rows)))
        for name, reason in faults.items():
            log.warning("evaluation after step %d: reward %s failed: %s", step, name, reason)
        summary = _summary(self._asker.reward_names, samples, np.concatenate(tables, axis=1))
        summary |= {"eval/dropped": exam.questions.dropped, "eval/truncated": exam.questions.truncated}
        self._write_results(step, summary)
        return summary

    def _write(self, step: int, share: range, answers: Answers, scores: Scores, *, first: bool) -> None:
        path = self._folder_of(step) / f"process-{self._exam.process}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if first else "a") as file:
            for row in range(len(answers.texts)):
                place, sample = divmod(row, self._exam.way.samples)
                named = {"question": share[place], "sample": sample}
                file.write(json.dumps(answer_record(answers, scores, row) | named) + "\n")

    def _write_results(self, step: int, summary: Row) -> None:
        """`results.json`: how it was asked, and every number of the summary; null where there is none."""
        if self._exam.process:
            return
        way = self._exam.way
        metrics = {name: value if math.isfinite(value) else None for name, value in summary.items()}
        asked = {"samples": way.samples, "temperature": way.temperature, "seed": self._exam.seed}
        path = self._folder_of(step) / "results.json"
        path.write_text(json.dumps({"step": step, **asked, "metrics": metrics}, indent=2) + "\n")

    def _folder_of(self, step: int) -> Path:
        return self._exam.folder / f"step-{step:08d}"


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


_COLUMNS = ("question", "sample", "tokens", "finished", "vote", "total")


def _padded_table(share: range, samples: int, answers: Answers, scores: Scores, rows: int) -> NDArray[np.float64]:
    """[row, column] of one size on every process: `_COLUMNS` (question -1: no row), then values, then failed."""
    lengths = [len(ids) for ids in answers.token_ids]
    questions = [number for number in share for _ in range(samples)]
    numbers = list(range(samples)) * len(share)
    votes = _votes(answers.texts, samples)
    columns = [questions, numbers, lengths, answers.finished, votes, scores.totals, *scores.values, *scores.failed]
    table = np.full((rows, len(columns)), -1.0)
    table[: len(questions)] = np.array(columns, np.float64).T
    return table


def _votes(texts: Sequence[str], samples: int) -> list[int]:
    """Each sample's answer as a number that the samples of its question share where they answer alike."""
    votes = []
    for start in range(0, len(texts), samples):
        known: dict[str, int] = {}
        for answer in map(vote_of, texts[start : start + samples]):
            votes.append(NO_VOTE if answer is None else known.setdefault(answer, len(known)))
    return votes


def _summary(names: tuple[str, ...], samples: int, tables: NDArray[np.generic]) -> Row:
    """Means in the order of the questions, so that they do not depend on the number of processes."""
    table = np.asarray(tables, np.float64).reshape(-1, tables.shape[-1])
    table = table[table[:, 0] >= 0]
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    column = {name: table[:, place] for place, name in enumerate(_COLUMNS)}
    values = table[:, len(_COLUMNS) : len(_COLUMNS) + len(names)].T
    failed = table[:, len(_COLUMNS) + len(names) :].T > 0
    row = reward_row(names, values, failed, column["total"])
    row |= statistics("length/completion", column["tokens"], "mean", "max")
    row["length/truncated"] = float(np.mean(column["finished"] == 0))
    row |= {"finish/stop": float(np.mean(column["finished"] > 0)), "finish/length": row["length/truncated"]}
    row |= {"questions": len(table) // samples, "samples": samples}
    if samples > 1:
        judge = names.index("correct") if "correct" in names else 0
        row |= solved_row(values[judge].reshape(-1, samples), column["vote"].astype(np.int64).reshape(-1, samples))
    return {f"eval/{name}": value for name, value in row.items()}
