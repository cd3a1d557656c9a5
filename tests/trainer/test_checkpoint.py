"""Checkpoints: what is restored is what was saved, bit for bit, on any mesh; only those that are committed and whole
count.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from trainer.checkpoint import Checkpoints, Place
from trainer.contract.exits import ExitCode, RunError


class State(NamedTuple):
    params: dict[str, jax.Array]
    step: jax.Array


def state_of(mesh, seed: int, rows: int = 8) -> State:
    split = NamedSharding(mesh, PartitionSpec("fsdp"))
    values = jax.device_put(np.random.default_rng(seed).standard_normal((rows, 3)).astype(np.float32), split)
    moments = jax.device_put(values.astype(jnp.bfloat16), split)
    return State({"w": values, "m": moments}, jax.device_put(np.int32(seed), NamedSharding(mesh, PartitionSpec())))


def saved(folder: Path, mesh, *steps: int, keep: int = 9) -> None:
    checkpoints = Checkpoints(str(folder), keep=keep)
    for step in steps:
        checkpoints.save(state_of(mesh, step), Place(step, step, ""))
    checkpoints.close()


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shape", [(1, 4, 2), (1, 2, 1), (2, 2, 2)])
def test_a_checkpoint_gives_back_every_bit_and_its_place(tmp_path: Path, mesh_of, shape) -> None:
    """Values, dtypes and the place in the data are those that were saved; the shardings are those asked for."""
    written, place = state_of(mesh_of(1, 4, 2), 7), Place(step=7, cursor=112, data="abc")
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    checkpoints.save(written, place)
    checkpoints.close()
    again, like = Checkpoints(str(tmp_path), keep=2), state_of(mesh_of(*shape), 1)
    restored, found = again.restore_newest(like)
    assert found == place
    assert again.newest == 7
    for one, other, asked in zip(*map(jax.tree.leaves, (written, restored, like)), strict=True):
        assert (other.dtype, other.sharding) == (one.dtype, asked.sharding)
        assert np.array_equal(one, other)


def test_a_user_without_a_name_writes_checkpoints(tmp_path: Path, mesh_of, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pod the user id is often not in the image's /etc/passwd."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("grp.getgrgid", unknown)
    saved(tmp_path, mesh_of(1, 4, 2), 1, 2)
    assert steps_in(tmp_path) == ["1", "2"]
    assert Checkpoints(str(tmp_path), keep=9).restore_newest(state_of(mesh_of(1, 4, 2), 1)) is not None


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, mesh_of) -> None:
    """Buffers that are given away and written over right after `save` are on the disk as they were."""
    mesh = mesh_of(1, 8, 1)
    forget = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 - 1, state), donate_argnums=0)
    for step in range(1, 4):
        checkpoints = Checkpoints(str(tmp_path / str(step)), keep=1)
        state = jax.tree.map(lambda leaf: leaf + 0, state_of(mesh, step, rows=1 << 16))
        expected = [np.array(leaf) for leaf in jax.tree.leaves(state)]
        checkpoints.save(state, Place(step, 0, ""))
        for _ in range(3):
            state = forget(state)
        jax.block_until_ready(state)
        checkpoints.finish()
        restored, _ = checkpoints.restore_newest(state)
        for one, other in zip(expected, jax.tree.leaves(restored), strict=True):
            assert np.array_equal(one, other)


def test_the_newest_are_kept_and_an_unfinished_one_does_not_count(tmp_path: Path, mesh_of) -> None:
    """Of three saves two stay; what a killed process left uncommitted is neither found nor in the way."""
    mesh = mesh_of(1, 8, 1)
    assert Checkpoints(str(tmp_path), keep=2).restore_newest(state_of(mesh, 0)) is None
    saved(tmp_path, mesh, 1, 2, 3, keep=2)
    shutil.copytree(tmp_path / "3", tmp_path / "4")
    (tmp_path / "4" / "committed.json").unlink()
    again = Checkpoints(str(tmp_path), keep=2)
    assert steps_in(tmp_path) == ["2", "3"]
    assert again.restore_newest(state_of(mesh, 0))[1].step == 3
    again.save(state_of(mesh, 4), Place(4, 4, ""))
    again.close()
    assert steps_in(tmp_path) == ["3", "4"]


def test_a_checkpoint_is_committed_when_it_is_written(tmp_path: Path, mesh_of) -> None:
    """Until all is on the disk it does not count; a look at it later commits it, without waiting for it."""
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    checkpoints.save(state_of(mesh_of(1, 8, 1), 1), Place(1, 1, ""))
    assert not (tmp_path / "1" / "committed.json").exists()
    while checkpoints.newest is None:
        checkpoints.poll()
    assert (tmp_path / "1" / "committed.json").exists()


def test_the_best_stays_beside_the_newest(tmp_path: Path, mesh_of) -> None:
    """The first with the highest score is kept with the newest, also by the next attempt."""
    mesh = mesh_of(1, 8, 1)
    for first in (0, 3):
        checkpoints = Checkpoints(str(tmp_path), keep=2)
        checkpoints.restore_newest(state_of(mesh, 0))
        for step, score in list(enumerate((0.2, 0.9, None, 0.4, 0.9, 0.5), start=1))[first:]:
            checkpoints.save(state_of(mesh, step), Place(step, step, ""), score)
            if step == first + 3:
                checkpoints.finish()
                assert checkpoints.best == 0.9
                break
    checkpoints.close()
    assert steps_in(tmp_path) == ["2", "5", "6"]


def test_an_older_one_that_cannot_be_deleted_costs_nothing(
    tmp_path: Path, mesh_of, caplog: pytest.LogCaptureFixture
) -> None:
    """What was moved to another disk behind a link cannot be deleted: that is told, and the new one counts."""
    mesh = mesh_of(1, 8, 1)
    saved(tmp_path / "run", mesh, 1)
    (tmp_path / "run" / "1").rename(tmp_path / "moved")
    (tmp_path / "run" / "1").symlink_to(tmp_path / "moved")
    checkpoints = Checkpoints(str(tmp_path / "run"), keep=1)
    checkpoints.restore_newest(state_of(mesh, 0))
    with caplog.at_level(logging.WARNING, "trainer"):
        checkpoints.save(state_of(mesh, 2), Place(2, 2, ""))
        checkpoints.finish()
    assert (checkpoints.newest, checkpoints.failed) == (2, 0)
    assert f"not all that is of no use in {tmp_path}/run could be deleted: Cannot call rmtree on a sym" in caplog.text
    assert Checkpoints(str(tmp_path / "run"), keep=1).restore_newest(state_of(mesh, 0))[1].step == 2


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def largest(checkpoint: Path) -> Path:
    return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "an array cut in half": lambda checkpoint: half(largest(checkpoint / "state")),
    "an array missing": lambda checkpoint: largest(checkpoint / "state" / "d").unlink(),
    "an empty metadata file": lambda checkpoint: os.truncate(checkpoint / "state" / "_METADATA", 0),
    "a missing metadata file": lambda checkpoint: (checkpoint / "state" / "_METADATA").unlink(),
    "no arrays at all": lambda checkpoint: shutil.rmtree(checkpoint / "state"),
    "an empty marker": lambda checkpoint: os.truncate(checkpoint / "committed.json", 0),
    "half a marker": lambda checkpoint: half(checkpoint / "committed.json"),
    "a marker without its numbers": lambda checkpoint: (checkpoint / "committed.json").write_text('{"format": 1}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_damaged_checkpoint_the_one_before_is_used(
    tmp_path: Path, mesh_of, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is cut or missing, the newest whole one is restored, the damage is told, and its step is made again."""
    mesh = mesh_of(1, 8, 1)
    saved(tmp_path, mesh, 1, 2, 3)
    DAMAGES[damage](tmp_path / "3")
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    with caplog.at_level(logging.WARNING, "trainer"):
        restored, place = checkpoints.restore_newest(state_of(mesh, 0))
    assert place.step == 2
    assert np.array_equal(restored.params["w"], state_of(mesh, 2).params["w"])
    assert f"checkpoint {tmp_path}/3 is damaged: " in caplog.text
    checkpoints.save(state_of(mesh, 3), Place(3, 3, ""))
    checkpoints.close()
    assert steps_in(tmp_path) == ["3"]


def test_where_all_are_damaged_none_is_used_and_none_deleted(tmp_path: Path, mesh_of) -> None:
    """The run does not begin again by itself: it says what can be done."""
    mesh = mesh_of(1, 8, 1)
    saved(tmp_path, mesh, 1, 2)
    half(largest(tmp_path / "1" / "state"))
    (tmp_path / "2" / "state" / "_METADATA").unlink()
    with pytest.raises(RunError) as refused:
        Checkpoints(str(tmp_path), keep=2).restore_newest(state_of(mesh, 0))
    assert refused.value.code is ExitCode.INPUT_NOT_REACHABLE
    assert refused.value.message == (
        f"output.uri: no checkpoint below {tmp_path} is whole (2 damaged); restore the folder, or start afresh with "
        "--new-run or checkpoint.resume: Never"
    )
    assert steps_in(tmp_path) == ["1", "2"]


def test_a_later_format_is_refused(tmp_path: Path, mesh_of) -> None:
    """A checkpoint of a later trainer is no damage: nothing older is used in its place."""
    mesh = mesh_of(1, 8, 1)
    saved(tmp_path, mesh, 1, 2)
    marker = tmp_path / "2" / "committed.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"format": 2, "more": "than we know"}))
    with pytest.raises(RunError) as refused:
        Checkpoints(str(tmp_path), keep=2).restore_newest(state_of(mesh, 0))
    assert refused.value.code is ExitCode.CONTRACT_VERSION
    assert refused.value.message == (
        f"{tmp_path}/2: its format 2 must be at most 1, which this trainer reads; use the trainer image that wrote it"
    )
    assert steps_in(tmp_path) == ["1", "2"]


def test_a_save_that_fails_leaves_the_older_ones(tmp_path: Path, mesh_of, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is too small is told with the path and its free bytes, counted, and later saves are made."""
    mesh = mesh_of(1, 8, 1)
    saved(tmp_path, mesh, 1)
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    checkpoints.restore_newest(state_of(mesh, 0))
    huge = jax.eval_shape(lambda: jnp.zeros((1 << 60,), jnp.uint8))
    with caplog.at_level(logging.WARNING, "trainer"):
        checkpoints.save({"w": huge}, Place(2, 2, ""))
    assert f"checkpoint of step 2 could not be written to {tmp_path}: it needs 1,152,921,504,606,846,976" in caplog.text
    assert " bytes are free; the newest stays that of step 1" in caplog.text
    assert (checkpoints.failed, checkpoints.newest, steps_in(tmp_path)) == (1, 1, ["1"])
    checkpoints.save(state_of(mesh, 3), Place(3, 3, ""))
    checkpoints.close()
    assert steps_in(tmp_path) == ["3"]
