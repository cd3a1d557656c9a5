"""How a run ends when it cannot go on: a lost process, numbers that overflow, a reward that never works."""

import os
import re
import signal
import time
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
    assert re.fullmatch(r"the trainer was ended by SIGKILL \(.* step \d+\)", killed.cause.message)
    assert (survivor.code, survivor.cause.name, survivor.cause.process) == (9, "PeerLost", 0)
    assert survivor.cause.step >= 3


def test_a_step_that_is_not_finite_ends_the_run(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """Weights that a first step made huge give no finite second one: all end with 7 and the step's numbers."""
    run = resolved(
        byte_model,
        data,
        tmp_path / "out",
        2,
        1,
        steps=5,
        optimizer={"name": "sgd", "learning_rate": 10.0, "weight_decay": 1e30},
    )
    ended = Launched(run, tmp_path).wait()
    assert [(one.code, one.cause.name, one.cause.step) for one in ended] == [(7, "NonFinite", 1)] * 2
    for one in ended:
        assert f"the step was not applied, its batch is in {tmp_path}" in one.cause.message
        assert one.cause.message.endswith("; lower optimizer.learning_rate (10)")


def test_a_reward_that_fails_on_every_row_ends_the_first_step(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """A function that only ever raises will not do better later: all end with 1 and the exception's text."""
    run = resolved(byte_model, data, tmp_path / "out", 2, 1, rewards=[{"python": "reward_samples:raises"}])
    for ended in Launched(run, tmp_path).wait():
        assert (ended.code, ended.cause.name) == (1, "Failed")
        assert ended.cause.message == (
            "rewards[0]: raises failed on all 32 completions of the first step: KeyError: 'solution'; "
            "try it with --rewards-try"
        )


@pytest.mark.long
def test_a_failure_of_one_process_is_told_by_the_other(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """What process 1 cannot write, in the middle of an evaluation, is its cause with the path; the other names it."""
    run = resolved(byte_model, data, tmp_path / "out", 2, 1, eval_every_steps=2)
    launched = Launched(run, tmp_path)
    (launched.folder / "eval/step-00000002/process-1.jsonl").mkdir(parents=True)
    survivor, failed = launched.wait()
    path = launched.folder / "eval/step-00000002/process-1.jsonl"
    text = (
        f"output.uri: {path} cannot be written (Is a directory); mend it, and the next attempt goes on from the last "
        "checkpoint"
    )
    assert (failed.code, failed.cause.exception, failed.cause.message) == (1, "IsADirectoryError", text)
    assert (survivor.code, survivor.cause.message) == (9, f"process 1 failed: {text}")
    assert failed.cause.step == survivor.cause.step == 2


@pytest.mark.long
def test_an_abort_of_its_own_is_no_lost_peer(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """The process that holds the coordinator aborts: it failed, and the other, which JAX aborts, lost it."""
    launched = Launched(resolved(byte_model, data, tmp_path / "out", 2, 1, steps=100_000), tmp_path)
    while not any(row["step"] >= 1 for row in launched.metrics):
        time.sleep(0.2)
    os.kill(trainer_of(launched.processes[0].pid), signal.SIGABRT)
    aborted, survivor = launched.wait()
    assert (aborted.code, aborted.cause.name) == (1, "Failed")
    assert aborted.cause.message.startswith("the trainer aborted (")
    assert (survivor.code, survivor.cause.name) == (9, "PeerLost")
