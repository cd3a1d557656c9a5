"""What the demo reads from a run folder, written here by the trainer's own hands."""

import numpy as np
import pytest

from examples.demo.results import read_curve
from trainer.metrics import MetricsFile, reward_row

NAMES = ("correct", "format")


def scored(correct, weight=0.8):
    """One row of metrics, for answers that all have their format right."""
    values = np.array([correct, np.ones(len(correct))])
    totals = weight * values[0] + (1 - weight) * values[1]
    return reward_row(NAMES, values, np.zeros(values.shape, bool), totals)


def evaluated(correct):
    return {f"eval/{name}": value for name, value in scored(correct).items()} | {"eval/questions": len(correct)}


def test_curve_holds_rewards_of_steps_and_exact_match_of_evaluations(tmp_path):
    """Step 0 has an evaluation and no reward; later steps have a reward, and an evaluation where one was due."""
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.write({"step": 0} | evaluated([1.0, 0.0, 0.0, 0.0]))
    metrics.write({"step": 1} | scored([1.0, 0.0]))
    metrics.write({"step": 2} | scored([1.0, 1.0]) | evaluated([1.0, 1.0, 1.0, 0.0]))
    curve = read_curve(tmp_path, "seed 3")
    assert (curve.label, curve.questions) == ("seed 3", 4)
    assert curve.steps == (1, 2)
    assert curve.rewards == pytest.approx((0.6, 1.0))
    assert curve.eval_steps == (0, 2)
    assert (curve.before, curve.after) == (0.25, 0.75)


def test_a_run_without_an_evaluation_counts_no_questions(tmp_path):
    """A folder with training steps only gives a curve that the verdict refuses, rather than an error."""
    MetricsFile(tmp_path / "metrics.jsonl").write({"step": 1} | scored([1.0, 0.0]))
    curve = read_curve(tmp_path, "seed 0")
    assert (curve.questions, curve.eval_steps) == (0, ())
