"""Checkpoints by Orbax: the state of training and the place in the data, committed whole or not at all.

In: a TrainState and a Place. Out: the same, bit for bit, on the same mesh. It refuses to know when to save.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from trainer.distributed import gather

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run stands: completed steps, and questions drawn since the beginning (`cursor`).

    `data` is the digest of the questions: over others, the cursor would mean nothing.
    """

    step: int
    cursor: int
    data: str


class Checkpoints:
    """The newest `keep` checkpoints below `folder`, which all processes share. All call each method together."""

    def __init__(self, folder: str, keep: int) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            cleanup_tmp_directories=True,
            # On a CPU, "copied to the host" is the buffer itself, which the next update gives away.
            enable_async_checkpointing=jax.default_backend() != "cpu",
        )
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    def latest(self) -> int | None:
        """The newest committed step, as process 0 sees it: a shared folder may show others an older listing."""
        step = self._manager.latest_step()
        newest = int(gather(np.array(-1 if step is None else step, np.int64))[0])
        return None if newest < 0 else newest

    def save(self, state: Any, place: Place) -> None:
        """Begin to save; on an accelerator it goes on while training does."""
        if place.step in self._manager.all_steps():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), place=ocp.args.JsonSave(asdict(place)))
        self._manager.save(place.step, args=items, force=True)

    def restore(self, step: int, like: State) -> tuple[State, Place]:
        """The saved state, laid out like `like`: a state, or its shapes with shardings."""
        shapes = jax.tree.map(_shape, like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(shapes), place=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return restored.state, Place(**restored.place)

    def clear(self) -> None:
        """Forget every checkpoint: the run begins again."""
        for step in self._manager.all_steps():
            self._manager.delete(step)

    def wait(self) -> None:
        """Until what `save` began is committed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def fingerprint(params: Any) -> str:
    """Sixteen hex digits over every bit of the parameters, the same however they are sharded; each process gets it."""
    with jax.numpy_dtype_promotion("standard"):
        sums = jax.jit(_bit_sums)(params)
    return hashlib.sha256(np.stack([np.asarray(part) for part in sums]).tobytes()).hexdigest()[:16]


def _bit_sums(params: Any) -> list[jax.Array]:
    return [_bit_sum(leaf) for leaf in jax.tree.leaves(params)]


def _bit_sum(leaf: jax.Array) -> jax.Array:
    """A sum modulo 2^32 of each value's bits, mixed with its place: sums of integers do not depend on their order."""
    width = jnp.uint32 if leaf.dtype.itemsize == 4 else jnp.uint16
    bits = jax.lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    # The finaliser of MurmurHash3 (https://github.com/aappleby/smhasher), so that near values do not cancel out.
    mixed = bits ^ (place * jnp.uint32(0x9E3779B1))
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)
