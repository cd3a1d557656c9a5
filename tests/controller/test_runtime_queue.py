"""The work queue and its workers: each key once, one worker at a time, later after each failure. The clock is ours."""

import logging
import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.runtime.backoff import Backoff
from controller.runtime.client import ApiError
from controller.runtime.queue import WorkQueue
from controller.runtime.workers import Result, Workers


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(queue: WorkQueue) -> list[str]:
    """All keys that wait now, each taken and finished."""
    found = []
    while (key := queue.get(timeout=0)) is not None:
        found.append(key)
        queue.done(key)
    return found


def test_a_key_waits_once_however_often_it_is_added() -> None:
    """Keys come out in the order of their first addition, each once."""
    queue = WorkQueue()
    for key in ("b", "a", "b", "b", "a"):
        queue.add(key)
    assert (len(queue), taken(queue)) == (2, ["b", "a"])


def test_a_key_that_is_worked_on_is_not_handed_out_again() -> None:
    """Added meanwhile, it comes back once its worker is done, and no earlier."""
    queue = WorkQueue()
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert queue.get(timeout=0) is None
    queue.done("a")
    assert taken(queue) == ["a"]


def test_a_delayed_key_comes_at_the_earliest_of_its_times() -> None:
    """A later time that was asked for beside an earlier one is void; an addition in between changes neither."""
    clock = Clock()
    queue = WorkQueue(clock)
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    queue.add_after("a", 20)
    queue.add("a")
    assert taken(queue) == ["a"]
    clock.now += 9.9
    assert taken(queue) == []
    clock.now += 0.1
    assert taken(queue) == ["a"]
    clock.now += 60
    assert taken(queue) == []


def test_each_failure_makes_the_next_delay_longer_until_it_is_forgotten() -> None:
    """Delays double within their random half, end at the longest, and begin anew after `forget`."""
    queue = WorkQueue(Clock(), first_delay=1, longest_delay=8)
    delays = [queue.add_rate_limited("a") for _ in range(6)]
    for delay, bound in zip(delays, (1, 2, 4, 8, 8, 8), strict=True):
        assert bound / 2 <= delay <= bound
    assert queue.failures("a") == 6
    queue.forget("a")
    assert queue.add_rate_limited("a") <= 1


def test_the_server_may_ask_for_a_longer_delay() -> None:
    """What Retry-After asks for is kept, even beyond the longest delay."""
    clock = Clock()
    queue = WorkQueue(clock, longest_delay=8)
    assert queue.add_rate_limited("a", at_least=20) == 20
    clock.now += 19
    assert taken(queue) == []
    clock.now += 1
    assert taken(queue) == ["a"]


def test_back_off_never_overflows() -> None:
    """After ten thousand failures the delay is still the longest."""
    backoff = Backoff(0.1, 30, random.Random(1))
    assert all(15 <= backoff.next() <= 30 for _ in range(10_000) if backoff.failures > 10)


def test_a_queue_that_is_shut_down_wakes_who_waits() -> None:
    """Waiting workers get None; what is added afterwards is not taken."""
    queue = WorkQueue()
    got: list[str | None] = ["not yet"]
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    queue.shut_down()
    thread.join(timeout=5)
    queue.add("a")
    queue.add_after("b", 0.01)
    assert (got[1:], queue.get(timeout=0.05)) == ([None], None)


@given(st.lists(st.tuples(st.sampled_from(["add", "later", "take", "done", "pass"]), st.sampled_from("abc"))))
@settings(max_examples=200, deadline=None)
def test_no_order_of_calls_loses_a_key_or_hands_it_out_twice(steps: list[tuple[str, str]]) -> None:
    """Whatever is added is taken after that addition; no key is with two workers."""
    clock = Clock()
    queue, owed, working = WorkQueue(clock), set(), list[str]()
    for step, key in steps:
        if step == "add":
            queue.add(key)
            owed.add(key)
        elif step == "later":
            queue.add_after(key, 5)
            owed.add(key)
        elif step == "pass":
            clock.now += 5
        elif step == "take" and (got := queue.get(timeout=0)) is not None:
            assert got not in working
            working.append(got)
            owed.discard(got)
        elif step == "done" and working:
            queue.done(working.pop())
    # A key that is taken while its later time has not come is owed once more: taking all settles it.
    while working:
        queue.done(working.pop())
    clock.now += 5
    assert owed <= set(taken(queue))
    assert (taken(queue), len(queue)) == ([], 0)


def run_until(queue: WorkQueue, reconcile: Callable[[str], Result], enough: threading.Event, count: int = 1) -> None:
    workers = Workers(queue, reconcile, count)
    workers.start()
    assert workers.is_alive
    assert enough.wait(60)
    assert workers.stop()


def test_a_failed_pass_is_tried_again_and_a_good_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal of the server is a line, a fault of ours a traceback; both come back, later each time."""
    caplog.set_level(logging.INFO)
    queue, enough = WorkQueue(first_delay=0.01), threading.Event()
    outcomes = iter([ApiError(409, "Conflict", "changed"), ValueError("ours"), None])
    seen = []

    def reconcile(key: str) -> Result:
        seen.append((key, queue.failures(key)))
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        threading.Timer(0.1, enough.set).start()
        return Result()

    queue.add("ns/a")
    run_until(queue, reconcile, enough)
    assert seen == [("ns/a", 0), ("ns/a", 1), ("ns/a", 2)]
    assert queue.failures("ns/a") == 0
    conflict, ours = [record for record in caplog.records if "reconcile" in record.message]
    assert (conflict.levelname, conflict.exc_info, ours.levelname) == ("INFO", None, "ERROR")
    assert ours.exc_info is not None


def test_a_pass_may_ask_to_be_repeated() -> None:
    """`requeue_after` brings the key back after so many seconds, as no failure."""
    queue, enough, passes = WorkQueue(), threading.Event(), []

    def reconcile(key: str) -> Result:
        passes.append(queue.failures(key))
        if len(passes) == 3:
            enough.set()
        return Result(requeue_after=0.01)

    queue.add("a")
    run_until(queue, reconcile, enough)
    assert passes[:3] == [0, 0, 0]


def test_a_key_is_with_one_worker_however_many_there_are() -> None:
    """Four workers and a key that is added all the time: its passes never overlap, and the last addition is seen."""
    queue, enough, inside, most = WorkQueue(), threading.Event(), [0], [0]
    lock = threading.Lock()
    added, seen = [0], [0]

    def reconcile(key: str) -> Result:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        seen[0] = added[0]
        threading.Event().wait(0.002)
        with lock:
            inside[0] -= 1
        if seen[0] == 50:
            enough.set()
        return Result()

    def add() -> None:
        for _ in range(50):
            added[0] += 1
            queue.add("a")
            threading.Event().wait(0.001)

    thread = threading.Thread(target=add)
    thread.start()
    run_until(queue, reconcile, enough, count=4)
    thread.join()
    assert (most[0], seen[0]) == (1, 50)


def test_a_stop_lets_a_pass_under_way_end() -> None:
    """`stop` waits for it; keys that wait are not begun."""
    queue, began, ended = WorkQueue(), threading.Event(), []

    def reconcile(key: str) -> Result:
        began.set()
        threading.Event().wait(0.2)
        ended.append(key)
        return Result()

    queue.add("a")
    queue.add("b")
    workers = Workers(queue, reconcile, 1)
    workers.start()
    assert began.wait(60)
    assert workers.stop()
    assert ended == ["a"]
