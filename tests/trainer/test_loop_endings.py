"""How a run ends when it cannot go on: a lost process, numbers that overflow, a reward that never works, a stall."""

import os
import signal
from pathlib import Path

import pytest
from launching import Launched, resolved, sums


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums(tmp_path_factory.mktemp("data") / "sums.jsonl")


def trainer_of(supervisor: int) -> int:
    """The process that a supervisor watches."""
    return int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])


def test_a_killed_process_ends_the_other_with_a_clear_cause(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """After kill -9 of one trainer in the middle of a run its supervisor says so, and the survivor ends with 9."""
    launched = Launched(resolved(byte_model, data, tmp_path / "out", 2, 2, steps=100_000), tmp_path)
    assert launched.processes[0].stdout is not None
    for line in launched.processes[0].stdout:
        if line.startswith("step 3/"):
            break
    os.kill(trainer_of(launched.processes[1].pid), signal.SIGKILL)
    survivor, killed = launched.wait()
    assert (killed.code, killed.cause.name, killed.cause.process) == (1, "Failed", 1)
    assert killed.cause.message == "the trainer was ended by SIGKILL"
    assert (survivor.code, survivor.cause.name, survivor.cause.process) == (9, "PeerLost", 0)
    assert survivor.cause.step >= 3


def test_a_step_that_is_not_finite_ends_the_run(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """Weights that a first step made huge give no finite second one: the run ends with 7 and the step's numbers."""
    run = resolved(
        byte_model,
        data,
        tmp_path / "out",
        1,
        1,
        steps=5,
        optimizer={"name": "sgd", "learning_rate": 10.0, "weight_decay": 1e30},
    )
    ended = Launched(run, tmp_path).wait()[0]
    assert (ended.code, ended.cause.name, ended.cause.step) == (7, "NonFinite", 1)
    assert f"the step was not applied, its batch is in {tmp_path}" in ended.cause.message
    assert ended.cause.message.endswith("; lower optimizer.learning_rate (10)")


def test_a_reward_that_fails_on_every_row_ends_the_first_step(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """A function that only ever raises will not do better later: the run ends with 1 and the exception's text."""
    run = resolved(byte_model, data, tmp_path / "out", 1, 1, rewards=[{"python": "reward_samples:raises"}])
    ended = Launched(run, tmp_path).wait()[0]
    assert (ended.code, ended.cause.name) == (1, "Failed")
    assert ended.cause.message == (
        "rewards[0]: raises failed on all 32 completions of the first step: KeyError: 'solution'; "
        "try it with --rewards-try"
    )


def test_a_run_without_progress_is_stalled(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """A reward that blocks for longer than the deadline ends with 8, and leaves the threads' stacks in the folder."""
    rewards = [{"python": "reward_samples:hangs_after_the_first_call", "timeout_seconds": 600}]
    run = resolved(byte_model, data, tmp_path / "out", 1, 1, "progress_deadline_seconds=5", rewards=rewards)
    launched = Launched(run, tmp_path)
    ended = launched.wait()[0]
    assert (ended.code, ended.cause.name, ended.cause.step) == (8, "Stalled", 1)
    assert ended.cause.message.endswith("(progress_deadline_seconds is 5)")
    assert "experience.py" in (launched.folder / "stacks" / "process-0.txt").read_text()
