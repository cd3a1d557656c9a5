"""SIGTERM to one of two processes: all end with 10, whatever they were doing, and keep what was trained."""

import signal
import time
from pathlib import Path

import pytest
from interrupting import Watched, newest, until
from launching import Ended, Launched, resolved, sums

FOR_EVER = [{"python": "reward_samples:letters", "timeout_seconds": 3600}]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums(tmp_path_factory.mktemp("data") / "sums.jsonl")


def stopped(launched: Launched, asked: int) -> list[Ended]:
    launched.processes[asked].send_signal(signal.SIGTERM)
    ended = launched.wait()
    assert [(one.code, one.cause and one.cause.name) for one in ended] == [(10, "Preempted")] * 2, ended
    return ended


@pytest.mark.long
def test_a_reward_that_takes_an_hour_holds_nobody_up(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """The step before it is committed, the open one is lost, and the next attempt makes it again."""
    run = resolved(byte_model, data, tmp_path / "out", 2, 1, checkpoint={"every_steps": 100}, rewards=FOR_EVER)
    hold = tmp_path / "hold"
    first = Launched(run, tmp_path, REWARDS_WAIT_FOR_REMOVAL_OF=str(hold))
    until(lambda: any(row["step"] == 1 for row in first.metrics), "the first step")
    hold.touch()
    time.sleep(3)
    ended = stopped(first, asked=1)
    step = newest(first)
    assert ended[0].cause.step == step >= 1
    assert "and saved" in ended[0].out
    hold.unlink()
    second = Launched(run, tmp_path, attempt=1)
    assert f"resuming after step {step}," in second.finish()[0].out
    assert [row["step"] for row in second.metrics] == [1, 2, 3]


def test_before_the_first_step_nothing_is_waited_for(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """While the first step is made, which compiles everything, all are left as they are: there is nothing to keep."""
    hold = tmp_path / "hold"
    hold.touch()
    run = resolved(byte_model, data, tmp_path / "out", 2, 1, checkpoint={"every_steps": 1}, rewards=FOR_EVER)
    launched = Launched(run, tmp_path, REWARDS_WAIT_FOR_REMOVAL_OF=str(hold))
    for process in map(Watched, [process.pid for process in launched.processes]):
        until(lambda process=process: process.entry.doing == "rewards of step 1", "the rewards that are held up")
        process.close()
    ended = stopped(launched, asked=0)
    assert ended[1].cause.message == (
        "asked to stop; a later attempt goes on from the last checkpoint, and only the open step is lost"
    )
    assert newest(launched) == 0
