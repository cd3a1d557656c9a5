"""Whatever happens to a job, it ends within its budgets, each attempt counts once, and what is over stays over."""

import os
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.lifecycle.attempts import reason_of
from controller.lifecycle.reconcile import reconcile
from tests.controller.observing import SETTINGS, ended, pod, started

SCALE = int(os.environ.get("GRPO_TEST_SCALE") or 1)
CODES = (1, 2, 3, 5, 6, 7, 8, 9, 10, 127, 134, 137, 143)
HAPPENINGS = st.one_of(
    st.tuples(st.just("fail"), st.sampled_from(CODES), st.booleans()),
    st.tuples(st.just("fail"), st.just(10), st.just(True)),
    st.tuples(st.sampled_from(["unseen", "delete", "suspend", "resume", "wait", "complete", "crash", "pod", "stuck"])),
)


class World:
    """A cluster, and what truly happened in it."""

    def __init__(self, restarts: int, disruptions: int) -> None:
        self.budget = restarts + disruptions
        restart = {"maxRestarts": restarts, "maxDisruptions": disruptions}
        self.cluster = started(restart=restart, lifecycle={"startupDeadlineSeconds": 60})
        self.losses = 0
        self.ends: list[Any] = []

    @property
    def runs(self) -> bool:
        return self.cluster.job_set is not None and not self.cluster.job_set["status"].get("terminalState")

    def happen(self, what: tuple[Any, ...]) -> None:
        if what[0] == "wait":
            self.cluster.wait(61)
        elif what[0] in ("suspend", "resume"):
            self.cluster.job["spec"]["suspend"] = what[0] == "suspend"
        elif what[0] == "crash":
            self.crash()
        elif self.runs:
            getattr(self, f"_{what[0]}")(*what[1:])

    def crash(self) -> None:
        """A controller decides, makes what it decided, and dies before the status is written."""
        self.cluster.create(reconcile(self.cluster.seen(), SETTINGS))

    def _fail(self, code: int, first: bool) -> None:
        self.losses += 1
        uid = self.cluster.job_set["metadata"]["uid"]  # type: ignore[index]
        restart = self.cluster.job_set["status"].get("restarts", 0)  # type: ignore[index]
        ends = [ended(code, 0, restart), ended(9, 1, restart)][:: 1 if first else -1]
        if code in (2, 3, 5, 7):
            self.cluster.set_job_set(terminalState="Failed")
            self.cluster.pods = [replace(one, job_set_uid=uid) for one in ends]
        else:
            self.cluster.restart_with(*ends)

    def _unseen(self) -> None:
        self.losses += 2
        restart = self.cluster.job_set["status"].get("restarts", 0) + 2  # type: ignore[index]
        self.cluster.set_job_set(restarts=restart)
        self.cluster.run(restart)

    def _delete(self) -> None:
        self.losses += 1
        self.cluster.job_set, self.cluster.pods = None, []

    def _complete(self) -> None:
        self.cluster.set_job_set(terminalState="Completed")

    def _pod(self) -> None:
        self.cluster.pods = [replace(one, phase="Failed", exit_code=10) for one in self.cluster.pods]

    def _stuck(self) -> None:
        self.cluster.pods = [pod(0, self.cluster.seen().restart, self.cluster.job_set["metadata"]["uid"])]  # type: ignore[index]


@settings(max_examples=20 * SCALE, deadline=None)
@given(st.integers(0, 3), st.integers(0, 4), st.lists(HAPPENINGS, max_size=15))
def test_no_history_breaks_the_ledger(restarts: int, disruptions: int, history: list[tuple[Any, ...]]) -> None:
    """Counts only grow, an attempt is named once, no budget is passed by more than what is seen at once, nothing of an
    ended job changes, and a job whose budgets hold has not failed for want of them.
    """
    world = World(restarts, disruptions)
    over: dict[str, Any] | None = None
    before = (0, 0)
    for what in history:
        world.happen(what)
        world.cluster.settle()
        status = world.cluster.status
        ledger = status["attempts"]
        counts = ledger["restarts"], ledger["disruptions"]
        assert counts >= before
        before = counts
        named = [(one["jobSetUid"], one["restart"]) for one in ledger.get("last", ())]
        assert len(named) == len(set(named))
        assert world.cluster.made <= 1 + world.budget + 25
        if over is not None:
            assert status == over
            assert not world.runs
        elif status["phase"] in ("Failed", "Succeeded"):
            over = status
        else:
            assert counts[0] <= restarts
            assert counts[1] <= disruptions
        reason = world.cluster.condition("Failed")[1]
        assert reason != "MaxRestartsReached" or counts[0] > restarts
        assert reason != "MaxDisruptionsReached" or counts[1] > disruptions


@settings(max_examples=10 * SCALE, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.data())
def test_a_run_that_always_fails_ends(restarts: int, disruptions: int, data: st.DataObject) -> None:
    """After at most the sum of both budgets, and one attempt more, by whatever it is ended each time."""
    world = World(restarts, disruptions)
    for _ in range(restarts + disruptions + 1):
        assert world.cluster.status["phase"] == "Running"
        what = data.draw(st.sampled_from([("fail", 1, True), ("fail", 10, False), ("fail", 9, True), ("delete",)]))
        world.happen(what)
        world.cluster.settle()
        if world.runs:
            world.cluster.run(world.cluster.seen().restart)
            world.cluster.settle()
        if world.cluster.status["phase"] == "Failed":
            return
    raise AssertionError("it goes on for ever")


def test_an_end_without_a_fault_says_nothing() -> None:
    """A pod that runs or ended with 0 is no evidence."""
    assert reason_of(pod()) is None
    assert reason_of(ended(0)) is None
