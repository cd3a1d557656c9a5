"""Reads what a run left in its folder: metrics in, a curve out. Knows no job and no drawing."""

import json
from pathlib import Path

from examples.demo.curve import Curve
from trainer.contract.runfolder import RunFolder

REWARD = "reward/total/mean"
EXACT_MATCH = "eval/reward/correct/mean"
QUESTIONS = "eval/questions"


def read_curve(folder: Path, label: str) -> Curve:
    """The mean reward of each training step, and greedy exact match where it was measured, step 0 before training."""
    lines = Path(RunFolder(str(folder)).metrics).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    trained = [row for row in rows if REWARD in row]
    evaluated = [row for row in rows if EXACT_MATCH in row]
    return Curve(
        label=label,
        steps=tuple(row["step"] for row in trained),
        rewards=tuple(row[REWARD] for row in trained),
        eval_steps=tuple(row["step"] for row in evaluated),
        exact_match=tuple(row[EXACT_MATCH] for row in evaluated),
        questions=min((int(row[QUESTIONS]) for row in evaluated), default=0),
    )
