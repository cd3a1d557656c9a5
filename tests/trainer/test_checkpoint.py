"""Checkpoints: what is restored is what was saved, bit for bit and where it lay; only committed ones count."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from trainer.checkpoint import Checkpoints, Place


class State(NamedTuple):
    params: dict[str, jax.Array]
    step: jax.Array


def state_of(mesh, seed: int) -> State:
    rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    values = jax.device_put(np.random.default_rng(seed).standard_normal((8, 3)).astype(np.float32), rows)
    moments = jax.device_put(values.astype(jnp.bfloat16), rows)
    return State({"w": values, "m": moments}, jax.device_put(np.int32(seed), NamedSharding(mesh, PartitionSpec())))


def test_a_checkpoint_gives_back_every_bit_and_its_place(tmp_path: Path, mesh_of) -> None:
    """Values, dtypes, shardings, the step and the place in the data are those that were saved."""
    mesh = mesh_of(1, 4, 2)
    saved, place = state_of(mesh, 7), Place(step=7, cursor=112, data="abc")
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    checkpoints.save(saved, place)
    checkpoints.close()
    again = Checkpoints(str(tmp_path), keep=2)
    restored, found = again.restore(again.latest(), state_of(mesh, 1))
    again.close()
    assert found == place
    for one, other in zip(jax.tree.leaves(saved), jax.tree.leaves(restored), strict=True):
        assert (one.dtype, one.sharding) == (other.dtype, other.sharding)
        assert np.array_equal(one, other)


def test_the_newest_are_kept_and_an_unfinished_one_does_not_count(tmp_path: Path, mesh_of) -> None:
    """Of three saves two stay; what a killed process left uncommitted is neither found nor in the way."""
    mesh = mesh_of(1, 8, 1)
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    assert checkpoints.latest() is None
    for step in (1, 2, 3):
        checkpoints.save(state_of(mesh, step), Place(step, step, ""))
    checkpoints.close()
    (tmp_path / "4.orbax-checkpoint-tmp").mkdir()
    again = Checkpoints(str(tmp_path), keep=2)
    assert again.latest() == 3
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["2", "3"]
    again.save(state_of(mesh, 4), Place(4, 4, ""))
    again.wait()
    assert again.latest() == 4
    again.close()
