"""The status of a GRPOJob: its words, and what it shares with other doors."""

import json
import typing

import pytest
from pydantic import ValidationError

from controller.statustypes import Condition, GRPOJobStatus, PlanStatus
from trainer.contract.batch import BatchPlan, Mesh

PLAN = BatchPlan(
    processes=2,
    devices_per_process=4,
    hosts=2,
    slices=1,
    mesh=Mesh(dp=1, fsdp=8, tp=1),
    group_size=8,
    sequences_per_step=128,
    prompts_per_step=16,
    prompts_per_pass_per_process=8,
    passes=1,
    sequences_per_process=64,
    sequences_per_micro_step=64,
    micro_steps=1,
)

STATUS = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Failed",
            "status": "True",
            "reason": "MaxRestartsReached",
            "message": "three failures",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-11-24T08:00:00Z",
        }
    ],
    "phase": "Failed",
    "runId": "0123abcd",
    "progress": {"step": 120, "totalSteps": 500, "display": "120/500", "rewardMean": 0.5},
    "attempts": {
        "restarts": 4,
        "disruptions": 0,
        "evictions": 0,
        "last": [{"class": "Failure", "reason": "TrainerFailed", "exitCode": 1, "jobSetUid": "u", "restart": 3}],
        "before": 0,
        "judged": 4,
    },
}


def test_the_plan_of_the_status_has_the_keys_of_every_other_door() -> None:
    """`status.plan` is what `grpoctl plan -o json` prints, key for key and value for value."""
    plan = PLAN.as_dict()

    shown = PlanStatus.model_validate(plan).model_dump(by_alias=True)

    assert shown == plan
    assert list(shown) == list(plan)


def test_a_status_reads_back_as_it_was_written() -> None:
    """What the API server stores comes back unchanged, class and all."""
    status = GRPOJobStatus.model_validate_json(json.dumps(STATUS))

    assert status.to_dict() == STATUS


def test_a_field_of_a_later_version_is_kept() -> None:
    """An older controller that reads and writes a status loses nothing of a newer one."""
    later = STATUS | {"goodput": 0.93}

    assert GRPOJobStatus.model_validate_json(json.dumps(later)).to_dict() == later


@pytest.mark.parametrize(
    ("field", "value"), [("type", "Happy"), ("reason", "no reason"), ("lastTransitionTime", "yesterday")]
)
def test_a_condition_keeps_to_the_conventions(field: str, value: str) -> None:
    """Types are known ones, reasons CamelCase, times RFC 3339."""
    (condition,) = typing.cast("list[dict[str, object]]", STATUS["conditions"])

    with pytest.raises(ValidationError, match=field):
        Condition.model_validate_json(json.dumps(condition | {field: value}))
