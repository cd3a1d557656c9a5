"""What a plan says of the work that is lost at worst."""

from collections.abc import Callable
from typing import Any

import pytest

from controller.commands.planrows import plan_groups
from controller.resolve import Resolved

GRACE = "the open one: a checkpoint is made within 300 s (lifecycle.terminationGracePeriodSeconds)"
SINCE = "at most, and those made while a checkpoint is written: lost machine, or a grace too short"


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        ({}, [("lost with the pods", "all steps", "spec.output.uri is null: nothing survives them")]),
        (
            {"output": {"uri": "/runs"}},
            [
                ("lost by SIGTERM", "1 step", GRACE),
                (
                    "lost by a kill",
                    "all steps",
                    "lost machine, or a grace too short; give checkpoint.everySteps or checkpoint.everyMinutes",
                ),
            ],
        ),
        (
            {"output": {"uri": "/runs"}, "checkpoint": {"everySteps": 20, "everyMinutes": 30, "keep": 3}},
            [
                ("checkpoint every", "20 steps or 30 min", "below /runs, the last 3 kept"),
                ("lost by SIGTERM", "1 step", GRACE),
                ("lost by a kill", "20 steps or 30 min", SINCE),
            ],
        ),
        (
            {
                "output": {"uri": "/runs"},
                "checkpoint": {"everySteps": 1, "best": "eval/reward/correct/mean"},
                "evalEverySteps": 5,
            },
            [
                ("checkpoint every", "1 step", "below /runs, the last 2 kept"),
                ("best checkpoint", "1", "by eval/reward/correct/mean, saved when an evaluation beats all before"),
                ("lost by SIGTERM", "1 step", GRACE),
                ("lost by a kill", "1 step", SINCE),
            ],
        ),
    ],
    ids=["no output", "no cadence", "steps or minutes", "best"],
)
def test_a_plan_tells_the_work_that_is_lost_at_worst(
    resolve_job: Callable[..., Resolved], spec: dict[str, Any], rows: list[tuple[str, str, str]]
) -> None:
    """By a SIGTERM with its grace the open step; by a kill what was made since the last checkpoint, or everything."""
    lifecycle = {"terminationGracePeriodSeconds": 300}
    volumes = {
        "volumes": [{"name": "r", "nfs": {"server": "s", "path": "/"}}],
        "volumeMounts": [{"name": "r", "mountPath": "/runs"}],
    }
    resolved = resolve_job({"lifecycle": lifecycle} | volumes | spec)
    shown = [tuple(row) for row in plan_groups(resolved)[2]]
    assert shown[-len(rows) :] == rows
