"""A run in which nothing moves ends with 8 and the stacks of all; a run that is slow where it may be goes on."""

import os
import signal
from pathlib import Path

import pytest
from launching import Launched, resolved, sums
from test_loop_endings import trainer_of

from trainer.contract.exits import ExitCode


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums(tmp_path_factory.mktemp("data") / "sums.jsonl")


@pytest.mark.long
def test_a_reward_that_hangs_beyond_its_deadline(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """Half an answer, which no deadline of a call can end, in one process: both end with 8, and both wrote stacks."""
    rewards = [{"python": "reward_samples:breaks_off_an_answer", "timeout_seconds": 2}]
    run = resolved(byte_model, data, tmp_path / "out", 2, 1, "progress_deadline_seconds=5", rewards=rewards)
    launched = Launched(run, tmp_path)
    ended = launched.wait()
    assert [(one.code, one.cause.name, one.cause.step) for one in ended] == [(8, "Stalled", 1)] * 2
    for one in ended:
        assert "rewards of step 2: no progress for" in one.cause.message
        assert one.cause.message.endswith("(progress_deadline_seconds is 5)")
    stacks = [(launched.folder / f"stacks/process-{index}.txt").read_text() for index in range(2)]
    assert "process_allgather" in stacks[0]
    assert "isolated.py" in stacks[1]


def test_a_process_that_stands_still_in_a_collective(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """One process is frozen: the other waits for it in vain, and ends with 8 and its stacks.

    It is frozen by its reward, in step 2, because a freeze right after a compilation is JAX's to find.
    """
    rewards = [{"python": "reward_samples:freezes_the_trainer", "timeout_seconds": 2}]
    run = resolved(byte_model, data, tmp_path / "out", 2, 1, "progress_deadline_seconds=5", rewards=rewards)
    launched = Launched(run, tmp_path)
    waiting = launched.processes[0].wait(timeout=600)
    os.kill(trainer_of(launched.processes[1].pid), signal.SIGCONT)
    first, second = launched.wait()
    assert (waiting, first.cause.name) == (8, "Stalled"), first.cause.message
    assert first.cause.message.startswith("rewards of step 2: no progress for")
    assert (launched.folder / "stacks/process-0.txt").exists()
    assert second.code in (ExitCode.STALLED, ExitCode.PEER_LOST)


@pytest.mark.long
def test_what_is_slow_within_its_own_limits_is_no_stall(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """A reward that uses its deadline in one process, and a disk that takes longer than the deadline of progress."""
    rewards = [{"python": "reward_samples:takes_its_time_once", "timeout_seconds": 100, "args": {"seconds": 8}}]
    run = resolved(
        byte_model,
        data,
        tmp_path / "out",
        2,
        1,
        "progress_deadline_seconds=5",
        steps=2,
        rewards=rewards,
        eval_every_steps=2,
        checkpoint={"every_steps": 2, "keep": 1},
    )
    tests = Path(__file__).parent
    path = os.pathsep.join(map(str, (tests / "slow_disk", tests, tests.parents[1])))
    launched = Launched(run, tmp_path, PYTHONPATH=path, SECONDS_PER_COMMIT="8")
    launched.finish()
    assert max(row["time/rewards_s"] for row in launched.metrics if "time/rewards_s" in row) < 8  # process 0 waited
    assert [row["step"] for row in launched.metrics] == [0, 1, 2]
