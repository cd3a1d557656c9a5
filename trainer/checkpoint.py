"""Checkpoints by Orbax: the state of training and the place in the data, committed whole or not at all.

In: a TrainState and a Place. Out: the same, bit for bit, on the same mesh. It refuses to know when to save.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
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

    def wait(self) -> None:
        """Until what `save` began is committed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)  # type: ignore[no-untyped-call]
