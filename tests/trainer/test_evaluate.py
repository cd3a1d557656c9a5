"""Evaluation: which process asks which question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.contract.batch import BatchPlan, Mesh
from trainer.evaluate import batches_of, share_of


def plan_of(processes: int, prompts: int, group: int) -> BatchPlan:
    rows = prompts * group
    return BatchPlan(
        processes=processes,
        devices_per_process=1,
        hosts=processes,
        slices=1,
        mesh=Mesh(dp=1, fsdp=processes, tp=1),
        group_size=group,
        sequences_per_step=rows * processes,
        prompts_per_step=prompts * processes,
        prompts_per_pass_per_process=prompts,
        passes=1,
        sequences_per_process=rows,
        sequences_per_micro_step=rows,
        micro_steps=1,
    )


@given(
    questions=st.integers(1, 200),
    processes=st.integers(1, 5),
    prompts=st.integers(1, 6),
    group=st.integers(2, 4),
)
def test_every_question_is_asked_once(questions: int, processes: int, prompts: int, group: int) -> None:
    """Over all batches and processes each question of the split comes once, and no share is larger than a pass."""
    plan = plan_of(processes, prompts, group)
    asked = [
        number
        for batch in batches_of(questions, plan, None)
        for process in range(processes)
        for number in share_of(batch, process, plan)
    ]
    assert asked == list(range(questions))
    assert all(
        len(share_of(batch, process, plan)) <= prompts * group
        for batch in batches_of(questions, plan, None)
        for process in range(processes)
    )


@pytest.mark.parametrize(("limit", "expected"), [(None, 30), (1, 8), (2, 16), (9, 30)])
def test_a_limit_asks_the_first_questions(limit: int | None, expected: int) -> None:
    """`eval_batches` takes that many batches from the beginning of the split, the same ones every time."""
    batches = batches_of(30, plan_of(2, 2, 2), limit)
    assert [number for batch in batches for number in batch] == list(range(expected))
