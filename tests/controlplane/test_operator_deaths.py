"""The operator dies inside this process, at each call of its API client in turn; another one goes on. Nothing is lost,
or done twice. `test_operator_kills` kills a process; here it is a client that lets nothing through any more, so that
every call can be struck, reads and watches too.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from controller.cluster.resources import GRPOJOBS, JOB_SETS
from controller.operator.parts import Operator
from tests.controlplane.history import History
from tests.controlplane.operating import Operating, options
from tests.controlplane.test_operator_kills import written

MOST = 400
DEATHS = min(MOST, 8 * int(os.environ.get("GRPO_TEST_SCALE") or 1))
STEP = 1 if DEATHS == MOST else 3
"""Each call is struck, or every third."""
MOMENTS = ("before", "after")
READS = 8
"""A read of one kind is struck so often at each moment, then writes alone."""
LONGEST_LIFE = 180.0
Deaths = Counter[tuple[str, str]]
WRITES = {
    "POST configmaps",
    "POST jobsets",
    "PUT grpojobs/status",
    "POST events",
    "DELETE jobsets",
    "DELETE grpojobs",
}


class DeathError(SystemExit):
    """Ends whichever thread it is raised in, without a word."""


class Mortal:
    """An operator that dies at one call, `struck`: before it is sent, or once it is answered.

    It is its call number `at`, at `moment`; or one of a kind that was never struck so. Reads that were struck often
    enough by what `deaths` counts are not counted.
    """

    def __init__(self, operating: Operating, at: int, moment: str, deaths: Deaths) -> None:
        self._operator = Operator(options(operating.world, operating.namespace, stop_seconds=5.0))
        self._at, self._moment, self._deaths, self._calls = at, moment, deaths, 0
        self._lock = threading.Lock()
        self.struck: tuple[str, str] | None = None
        transport = self._operator.api._transport
        self._send = transport.send
        transport.send = self._pass  # type: ignore[method-assign, assignment]
        with suppress(DeathError):
            self._operator.start()

    def _pass(self, method: str, target: str, *given: Any) -> Any:
        call = written(method, target) + (" (watch)" if "watch=true" in target else "")
        with self._lock:
            self._live_on(())
            moments = self._strikes(call)
            self._live_on([("before", call)] if "before" in moments else ())
        answer = self._send(method, target, *given)
        with self._lock:
            try:
                self._live_on([(moment, call) for moment in moments])
            except DeathError:
                answer.close()
                raise
        return answer

    def _strikes(self, call: str) -> list[str]:
        """When this call is struck, if it is."""
        if new := [moment for moment in MOMENTS if (moment, call) not in self._deaths]:
            return new[:1]
        if call.startswith("GET") and self._deaths[self._moment, call] >= READS:
            return []
        self._calls += 1
        return [self._moment] if self._calls == self._at else []

    def _live_on(self, strikes: Sequence[tuple[str, str]]) -> None:
        """Or not: the first strike ends it, and it stays dead."""
        if self.struck is None and strikes:
            self.struck = strikes[0]
        if self.struck is not None:
            raise DeathError

    def bury(self) -> None:
        with suppress(DeathError):
            self._operator.stop()


@dataclass
class Life:
    """What a job is told to do, what is done to it on the way, and what must have come of it."""

    plan: list[list[str]]
    spec: dict[str, Any] = field(default_factory=dict)
    job_sets: int = 1
    ends: tuple[str, ...] = ("Succeeded",)
    attempts: tuple[int, ...] = (0,)
    acts: tuple[Callable[[Operating, str, History], bool], ...] = ()


def suspend(operating: Operating, name: str, history: History) -> bool:
    if history.last.get("phase") != "Running":
        return False
    operating.change(name, suspend=True)
    return True


def resume(operating: Operating, name: str, history: History) -> bool:
    if history.last.get("phase") != "Suspended" or operating.job_set(name) is not None:
        return False
    operating.change(name, suspend=False)
    return True


def delete(operating: Operating, name: str, history: History) -> bool:
    if history.last.get("phase") != "Running":
        return False
    operating.api.delete(GRPOJOBS, name, operating.namespace)
    return True


BROKEN = {"rollout": {"batchSize": 100, "numPreQ": 8}}
LIVES = {
    "restarts": Life([["1"]], attempts=(1,)),
    "pauses": Life([["run"]], job_sets=2, acts=(suspend, resume)),
    "fails": Life([["2"]], ends=("Failed",)),
    "spends": Life(
        [["1"]] * 9, {"restart": {"maxRestarts": 1, "maxDisruptions": 1}}, ends=("Failed",), attempts=(2, 3, 4)
    ),
    "deleted": Life([["run"]], ends=(), acts=(delete,)),
    "broken": Life([], BROKEN, job_sets=0, ends=("Failed",)),
}


def live(operating: Operating, name: str, life: Life, deaths: Deaths) -> History:
    """One job from its creation to its deletion, while operators die at their first call, their second, and so on."""
    turns, acts = ((at, moment) for at in count(1, STEP) for moment in MOMENTS), list(life.acts)
    end = time.monotonic() + LONGEST_LIFE
    with History(operating, name) as history:
        lifecycle = {"ttlSecondsAfterFinished": 1, "terminationGracePeriodSeconds": 5}
        operating.apply(name, life.plan, lifecycle=lifecycle, **life.spec)
        while not history.over:
            at, moment = next(turns)
            mortal = Mortal(operating, at, moment, deaths)
            while mortal.struck is None and not history.over:
                assert time.monotonic() < end, f"{name} does not end: {history.last}"
                if acts and acts[0](operating, name, history):
                    del acts[0]
                history.wait(0.05)
            mortal.bury()
            if mortal.struck is not None:
                deaths[mortal.struck] += 1
    return history


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # each death ends a thread
def test_deaths_at_every_call(operating: Operating, record_property: Callable[[str, object], None]) -> None:
    """Jobs live through restart, suspension, failure, spent budgets, deletion and refusal: never two JobSets at a time,
    attempts counted once each, one end, no event for what was not so, and nothing comes back.
    """
    deaths: Deaths = Counter()
    lived = count()
    while sum(deaths.values()) < DEATHS:
        number = next(lived)
        kind = list(LIVES)[number % len(LIVES)]
        name, life = f"{kind}-{number}", LIVES[kind]
        history = live(operating, name, life, deaths)
        assert len(history.job_sets) == life.job_sets, name
        assert tuple(history.ends) == life.ends, name
        ledger = history.last.get("attempts") or {}
        assert ledger.get("restarts", 0) + ledger.get("disruptions", 0) in life.attempts, (name, history.last)
        assert set(operating.events(name)) <= history.reasons, name
    operating.start()
    operating.apply("afterwards", [["0"]])
    operating.wait_phase("afterwards", "Succeeded")
    left = {one["metadata"]["name"] for one in operating.api.list(JOB_SETS, operating.namespace)["items"]}
    assert left == {"afterwards"}
    for (moment, call), times in sorted(deaths.items()):
        record_property(f"died in-process {moment} {call}", times)
    if DEATHS == MOST:
        assert {(moment, write) for moment in MOMENTS for write in WRITES} <= deaths.keys()
