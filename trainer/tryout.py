"""Rewards on sample rows without a model: what each gives for the right answer, a wrong one, and none.

In: a RunConfig. Out: a table for people. It loads no JAX and no tokenizer, so `completion_ids` are the text's bytes.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.contract.exits import ExitCode, RunError
from trainer.contract.run import RunConfig
from trainer.data.prompts import Prompt, PromptWriter, text_of
from trainer.data.rows import DataError, Row, read_rows
from trainer.rewards import RewardSet, Rows, Scores
from trainer.rewards.answers import gold_text
from trainer.rewards.loading import LoadError
from trainer.rewards.numbers import read_number
from trainer.starting import read_run

KINDS = ("right", "wrong", "empty")


def main(argv: list[str]) -> int:
    """Exit code 0, or 2 and 5 with one line on stderr, as the trainer itself would end."""
    parser = argparse.ArgumentParser("python -m trainer", allow_abbrev=False)
    parser.add_argument("--rewards-try", type=Path, required=True, metavar="FILE", help="a resolved run.json")
    parser.add_argument("--rows", type=int, default=4, help="how many rows of the training data")
    given = parser.parse_args(argv)
    try:
        sys.stdout.write(try_rewards(read_run(given.rewards_try), given.rows))
    except RunError as error:
        print(error.message, file=sys.stderr)
        return int(error.code)
    return int(ExitCode.DONE)


def try_rewards(run: RunConfig, count: int) -> str:
    """Score three completions of each of the first `count` rows. Raises RunError INPUT_NOT_REACHABLE."""
    rewards = RewardSet(run.rewards, run.data.answer_field, run.steps)
    try:
        rows = read_rows("data.train", run.data.train, "train")[:count]
        writer = PromptWriter(run.data)
        prompts = [writer.write("data.train", row) for row in rows]
        rewards.start()
        scores = rewards.score(_all_kinds(run.data.answer_field, rows, prompts))
    except (DataError, LoadError) as error:
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, str(error)) from error
    finally:
        rewards.stop()
    return _told(run, rows, prompts, scores)


def completions_of(gold: str | None) -> tuple[str, str, str]:
    """A right completion in the usual form, a wrong one in the same form, and an empty one."""
    right = gold or "?"
    number = read_number(right)
    wrong = f"{right} not" if number is None else str(number.value + 1)
    form = "<think>\nthinking\n</think>\n<answer>\n{}\n</answer>"
    return form.format(right), form.format(wrong), ""


def _all_kinds(answer_field: str, rows: Sequence[Row], prompts: Sequence[Prompt]) -> Rows:
    texts = [text for row in rows for text in completions_of(gold_text(row.columns.get(answer_field)))]
    names = dict.fromkeys(name for row in rows for name in row.columns)
    columns: dict[str, list[Any]] = {
        name: [row.columns.get(name) for row in rows for _ in KINDS] for name in (*names, answer_field)
    }
    asked = [prompt for prompt in prompts for _ in KINDS]
    return Rows(asked, texts, [list(text.encode()) for text in texts], columns)


def _told(run: RunConfig, rows: Sequence[Row], prompts: Sequence[Prompt], scores: Scores) -> str:
    header = ("row", "completion", *scores.names, "total")
    cells = [header]
    for index in range(len(rows) * len(KINDS)):
        row, kind = divmod(index, len(KINDS))
        values = (*scores.values[:, index], scores.totals[index])
        cells.append((str(row + 1), KINDS[kind], *map(_cell, values)))
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    questions = [
        f"row {number}: {_short(text_of(prompt))} → {json.dumps(gold_text(row.columns.get(run.data.answer_field)))}"
        for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True), 1)
    ]
    weights = "weights: " + ", ".join(f"{reward.name} {reward.weight:g}" for reward in run.rewards)
    faults = [f"{name} failed: {error}" for name, error in scores.errors.items()]
    flat = [f"{name} gave every completion the same" for name in _same_everywhere(scores)]
    return "\n".join([*questions, "", *lines, "", weights, *faults, *flat]) + "\n"


def _same_everywhere(scores: Scores) -> list[str]:
    pairs = zip(scores.names, scores.values, strict=True)
    return [name for name, values in pairs if np.isfinite(values).any() and np.nanmin(values) == np.nanmax(values)]


def _cell(value: float) -> str:
    return f"{value:g}" if np.isfinite(value) else "–"


def _short(text: str, width: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else "…" + flat[-width + 1 :]
