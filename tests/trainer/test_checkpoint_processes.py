"""Checkpoints of several processes: a save is made by all or by none, and what one cannot write, all learn."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from launching import free_port
from saving import state_of

from trainer.cadence import Cadence
from trainer.checkpoint import Checkpoints, Place
from trainer.contract.runner import CheckpointConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def told(folder: Path) -> list[tuple[dict, str]]:
    """What two processes that saved into one folder printed: a JSON object each, and warnings."""
    command, port = [sys.executable, str(Path(__file__).with_name("saving.py"))], str(free_port())
    started = [
        subprocess.Popen([*command, str(index), port, str(folder)], stdout=-1, stderr=-1, text=True)
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    return [(json.loads(out.splitlines()[-1]), err) for out, err in outputs]


def test_the_clock_of_process_0_decides(told: list[tuple[dict, str]]) -> None:
    """Two processes whose clocks differ by an hour save after the same step."""
    assert [one["due"] for one, _ in told] == [[False, True]] * 2


def test_what_one_process_cannot_write_is_saved_by_none(told: list[tuple[dict, str]], folder: Path) -> None:
    """A process whose part does not fit fails the save for all, at once and in words; the next save is made."""
    assert [one["saved"] for one, _ in told] == [[[1, 0], [1, 1], [3, 1]]] * 2
    assert f"checkpoint of step 2 could not be written to {folder}: process 1: " in told[0][1]
    assert "File too large" in told[0][1]
    assert " bytes are free; the newest stays that of step 1" in told[0][1]
    assert "could not be written" not in told[1][1]


def test_what_one_process_cannot_read_is_used_by_none(told: list[tuple[dict, str]], folder: Path) -> None:
    """Of a checkpoint whose second half is spoiled, the process that can read its own half uses none of it either."""
    assert [one["restored"] for one, _ in told] == [[[3, True], [1, True]]] * 2
    assert f"checkpoint {folder}/3 is damaged: process 1: " in told[0][1]
    assert [path.name for path in folder.iterdir()] == ["1"]


def test_another_number_of_processes_reads_what_was_saved(told: list[tuple[dict, str]], folder: Path) -> None:
    """One process with other devices gets every bit of what two wrote."""
    mesh = Mesh(np.array(jax.devices()[:8]), ("fsdp",))
    restored, place = Checkpoints(str(folder), keep=2).restore_newest(state_of(0, mesh))
    assert place == Place(step=1, cursor=10, data="data")
    assert np.array_equal(restored["w"], state_of(1, mesh)["w"])


def test_a_checkpoint_is_due_by_steps_by_score_and_by_time() -> None:
    """Each of the three is enough; minutes count from the last save, and an equal score is no better one."""
    clock = [0.0]
    cadence = Cadence(CheckpointConfig(every_steps=5, every_minutes=1, best="eval/x"), lambda: clock[0])
    due = [step for step in range(1, 12) if cadence.is_due(step, None, 0.0)]
    assert due == [5, 10]
    assert [cadence.is_due(1, score, 0.5) for score in (None, 0.4, 0.5, 0.6)] == [False, False, False, True]
    clock[0] = 60.0
    assert cadence.is_due(1, None, 0.0)
    cadence.saved()
    assert not cadence.is_due(1, None, 0.0)
    assert [cadence.score_of(row) for row in ({"eval/x": 0.5}, {"eval/x": float("nan")}, {})] == [0.5, None, None]
