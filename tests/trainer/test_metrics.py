"""Metrics: statistics worked by hand, one row a step, and the line a person reads."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from step_row import ROW

from trainer.metrics import MetricsFile, group_row, reward_row, statistics
from trainer.progress import Pace, StepShown, clock, evaluation_line

NAN = math.nan


def test_a_replayed_step_replaces_its_row(tmp_path: Path) -> None:
    """Rows after the step that a run resumes from are forgotten; a row that a kill cut short is no row."""
    file = MetricsFile(tmp_path / "metrics.jsonl")
    assert file.read() == []
    for step in (1, 2, 3):
        file.write({"step": step, "update/loss": step / 2})
    with (tmp_path / "metrics.jsonl").open("a") as raw:
        raw.write('{"step": 4, "upda')
    file.keep_up_to(2)
    file.write({"step": 3, "update/loss": NAN})
    assert file.read() == [
        {"step": 1, "update/loss": 0.5},
        {"step": 2, "update/loss": 1.0},
        {"step": 3, "update/loss": None},
    ]


def test_a_row_that_is_told_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    """A step whose evaluation comes later has one line all the same, with nulls as they were."""
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.write({"step": 1, "update/loss": NAN})
    file.write({"step": 2, "update/loss": 0.5})
    file.replace({"step": 2, "update/loss": 0.5, "eval/questions": 8})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "update/loss": None},
        {"step": 2, "update/loss": 0.5, "eval/questions": 8},
    ]


def test_rewards_are_summed_up_over_rows_that_have_one() -> None:
    """Means leave out missing numbers, faults and unscorable rows are counted, weights are in the total alone."""
    values = np.array([[1.0, 0.0, NAN, 1.0], [0.5, NAN, NAN, NAN]])
    failed = np.array([[False] * 4, [False, False, False, True]])
    row = reward_row(("correct", "mine"), values, failed, np.array([1.25, 0.0, NAN, NAN]))
    assert row["reward/unscorable"] == 2
    assert (row["reward/total/mean"], row["reward/total/min"], row["reward/total/max"]) == (0.625, 0.0, 1.25)
    assert row["reward/total/std"] == pytest.approx(0.625)
    assert row["reward/correct/mean"] == pytest.approx(2 / 3)
    assert (row["reward/mine/mean"], row["reward/mine/failed"]) == (0.5, 1)


def test_groups_with_equal_rewards_are_counted() -> None:
    """Of four groups one differs, one is equal, one is equal but for an unscorable row, one has no number at all; the
    deviation is the mean over the three that have one.
    """
    totals = np.array([0.0, 1.0, 1.0, 1.0, 2.0, NAN, NAN, NAN])
    assert group_row(totals, 2) == {"reward/equal_groups": 0.75, "reward/group_std": pytest.approx(0.5 / 3)}
    assert math.isnan(group_row(totals[6:], 2)["reward/group_std"])
    assert math.isnan(statistics("x", np.array([NAN]), "mean")["x/mean"])


def test_the_pace_leaves_the_compiling_step_out() -> None:
    """The remaining time follows the first step only while there is no other, then the last ten."""
    pace = Pace()
    assert pace.remaining_seconds(3) is None
    pace.add(60.0)
    assert pace.remaining_seconds(3) == 180.0
    for _ in range(20):
        pace.add(2.0)
    assert pace.remaining_seconds(3) == 6.0
    assert (clock(3725.4), clock(None)) == ("1:02:05", "–")


def test_a_step_is_one_line() -> None:
    """Reward and its parts, loss, gradient, length, tokens per second, the phases and the time that is left."""
    line = StepShown(ROW, 100, ("correct",), 1065.0).line()
    assert line == (
        "step 12/100 | reward 0.512 (correct 0.410) | loss -0.0012 | grad 0.314 | length 213 | 4,120 tok/s "
        "| 12.1 s (rollout 9.0, rewards 0.1, update 2.9) | ETA 0:17:45"
    )
    assert StepShown(ROW, 100, ("correct",), 1065.0).fitting(80) == (
        "step 12/100 | reward 0.512 | loss -0.0012 | length 213 | 4,120 tok/s | 12.1 s"
    )
    assert "| 3 unscorable |" in StepShown(ROW | {"reward/unscorable": 3}, 100, ("correct",), None).line()


def test_an_evaluation_is_one_line() -> None:
    """Rewards, questions and what several samples tell; answers without a reward are shown where there are any."""
    row = {"eval/reward/total/mean": 0.75, "eval/reward/correct/mean": 0.5, "eval/reward/unscorable": 0.0}
    row |= {"eval/questions": 1319.0, "eval/pass@1": 0.5, "eval/maj@4": 0.625}
    told = evaluation_line(row, 20, ("correct",), 12.34)
    assert told == (
        "evaluation after step 20 | reward 0.750 (correct 0.500) on 1319 questions, pass@1 0.500, maj@4 0.625 | 12.3 s"
    )
    assert " | 3 unscorable | 12.3 s" in evaluation_line(row | {"eval/reward/unscorable": 3}, 20, ("correct",), 12.34)
