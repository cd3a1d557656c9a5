"""The table of a plan, by its rows."""

from collections.abc import Callable

import pytest

from controller.commands.planrows import plan_groups
from controller.resolve import Resolved


@pytest.mark.parametrize(("preset", "most"), [("dapo", 10), ("grpo", None)])
def test_a_plan_tells_what_dynamic_sampling_may_ask(
    resolve_job: Callable[..., Resolved], preset: str, most: int | None
) -> None:
    """Only where it is on, and as a number of prompts: a step may cost that many times its rollouts."""
    step = {row.label: row.value for row in plan_groups(resolve_job({"algorithm": {"preset": preset}}))[1]}
    asked = int(step["prompts per step"])
    assert step.get("prompts at most") == (None if most is None else str(most * asked))
