"""Checkpoints: the state of training and the place in the data, committed whole or not at all.

In: a TrainState and a Place. Out: the same, bit for bit, on any mesh. Orbax writes and reads the arrays; `committed.py`
tells which checkpoints count. It refuses to know when to save.
"""

import asyncio
import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from trainer import bucket, committed
from trainer.committed import DamagedError, Marker
from trainer.contract.exits import ExitCode, RunError
from trainer.distributed import gather, together

log = logging.getLogger("trainer")

State = TypeVar("State")
Result = TypeVar("Result")

_STATE = "state"
_NONE = -1
_TOLD = 400
_SILENT_SECONDS = 300.0
"""So long is a bucket waited for that did not give a checkpoint, before a run that would resume ends."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run stands: completed steps, and questions drawn since the beginning (`cursor`).

    `data` is the digest of the questions: over others, the cursor would mean nothing. `base` is the fingerprint of the
    frozen weights that adapters are trained beside, which no checkpoint holds; None where the weights are trained.
    """

    step: int
    cursor: int
    data: str
    base: str | None = None


@dataclass(frozen=True, slots=True)
class _Writing:
    """A checkpoint that is not committed yet; `written` is done when this process's part is on the disk."""

    place: Place
    score: float | None
    written: "Future[Any]"


class Checkpoints:
    """The checkpoints of a run below `folder`, which all processes share. All call each method together.

    The newest `keep` stay, and the best, whose score is `best`: minus infinity where none has one. `failed` counts the
    saves of this attempt that could not be made. `publish` is called before each commit: what was written of its step
    until then has to outlive this machine too.
    """

    def __init__(self, folder: str, keep: int, publish: Callable[[], None] = lambda: None) -> None:
        self._folder = bucket.absolute(bucket.path(folder))
        self._keep = keep
        self._publish = publish
        self._arrays = ocp.StandardCheckpointHandler()
        self._waiting = ThreadPoolExecutor(1, "checkpoint")
        self._writing: _Writing | None = None
        self.newest: int | None = None
        self.best = -math.inf
        self.failed = 0
        self._first(self._tidy)

    def save(self, state: Any, place: Place, score: float | None = None) -> None:
        """Begin to save: `state` is copied to the host, and its buffers may be given away.

        A save that fails is told and counted, and leaves the older checkpoints as they are.
        """
        self.finish()
        if self.newest == place.step:
            return
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        try:
            self._first(lambda: self._make_room(place.step, size))
        except RunError as error:
            self._give_up(place.step, error)
            return
        self._writing = _Writing(place, score, self._write(self._folder / str(place.step) / _STATE, state))

    @property
    def writing(self) -> bool:
        """Whether there is something to commit."""
        return self._writing is not None

    def poll(self) -> None:
        """Commit what `save` began, where all processes have written it."""
        if self._writing is not None and gather(np.array(self._writing.written.done())).all():
            self._conclude(self._writing)

    def finish(self) -> None:
        """Wait until what `save` began is committed, or has failed."""
        if self._writing is not None:
            wait([self._writing.written])
            self._conclude(self._writing)

    def close(self) -> None:
        self.finish()
        self._waiting.shutdown()
        self._arrays.close()

    def restore_newest(self, like: State) -> tuple[State, Place] | None:
        """The newest checkpoint that is whole, laid out like `like`: a state, or its shapes with shardings.

        Damaged ones are told and deleted: the run makes their steps again. None where none was ever committed. Raises
        RunError: CONTRACT_VERSION, INPUT_NOT_REACHABLE where all are damaged.
        """
        shapes, damaged = jax.tree.map(shape_of, like), list[int]()
        while (step := self._newest_but(damaged)) is not None:
            try:
                restored = together(partial(self._restore, step, shapes))
            except RunError as error:
                if error.code is not ExitCode.FAILED:
                    raise
                damaged.append(step)
                log.warning(
                    "checkpoint %s is damaged: %s; an older one is looked for", self._folder / str(step), error.message
                )
                continue
            self._first(lambda: self._remove(damaged))
            self.newest, self.best = restored[1].step, self._highest_score()
            return restored
        if damaged:
            raise RunError(
                ExitCode.INPUT_NOT_REACHABLE,
                f"output.uri: no checkpoint below {self._folder} is whole ({len(damaged)} damaged); restore the "
                "folder, or start afresh with --new-run or checkpoint.resume: Never",
                agreed=True,
            )
        return None

    def clear(self) -> None:
        """Forget every checkpoint: the run begins again."""
        self._first(lambda: self._remove(committed.committed_steps(self._folder)))
        self.newest = None

    # --- what process 0 does for all

    def _first(self, action: Callable[[], Result]) -> Result | None:
        """Let process 0 act, and all wait for it; its error is that of all."""
        return together(lambda: action() if jax.process_index() == 0 else None)

    def _tidy(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._spared():
            committed.remove_uncommitted(self._folder)

    def _make_room(self, step: int, size: int) -> None:
        """An empty folder for the step on a disk that can hold it: a full one would fail everything that is written."""
        self._publish()  # and a bucket that answers: Orbax would ask a silent one for a quarter of an hour
        checkpoint = self._folder / str(step)
        if checkpoint.exists():
            committed.remove(checkpoint)
        (checkpoint / _STATE).mkdir(parents=True)
        free = _free_bytes(self._folder)
        if free is not None and free < size:
            raise RunError(ExitCode.FAILED, f"it needs {size:,} bytes")

    def _commit(self, writing: _Writing) -> None:
        checkpoint = self._folder / str(writing.place.step)
        self._arrays.finalize(checkpoint / _STATE)
        place = writing.place
        files = committed.sizes(checkpoint)
        marker = Marker(place.step, place.cursor, place.data, writing.score, files, place.base)
        self._publish()
        committed.commit(checkpoint, marker)
        with self._spared():
            self._remove(committed.superfluous(list(committed.readable_markers(self._folder)), self._keep))

    @contextmanager
    def _spared(self) -> Iterator[None]:
        """What cannot be deleted only takes room: it does not count, and what was just committed does."""
        try:
            yield
        except Exception as error:
            log.warning("not all that is of no use in %s could be deleted: %s", self._folder, error)

    def _remove(self, steps: Iterable[int]) -> None:
        for step in steps:
            committed.remove(self._folder / str(step))

    # --- what all do

    def _newest_but(self, damaged: Container[int]) -> int | None:
        steps = self._first(lambda: [step for step in committed.committed_steps(self._folder) if step not in damaged])
        newest = int(gather(np.array(steps[-1] if steps else _NONE, np.int64))[0])
        return None if newest == _NONE else newest

    def _highest_score(self) -> float:
        found = self._first(lambda: list(committed.readable_markers(self._folder))) or []
        highest = max((marker.score for marker in found if marker.score is not None), default=-math.inf)
        return float(gather(np.array(highest, np.float64))[0])

    def _restore(self, step: int, shapes: Any) -> tuple[Any, Place]:
        """A bucket that did not give it is asked again once it answers: only then is it damaged."""
        checkpoint = self._folder / str(step)
        try:
            return self._read(checkpoint, shapes)
        except Exception as error:
            if not bucket.is_uri(str(checkpoint)):
                raise
            log.warning("checkpoint %s could not be read, and is asked for again: %s", checkpoint, error)
        try:
            bucket.read(str(checkpoint / committed.MARKER), _SILENT_SECONDS)
            return self._read(checkpoint, shapes)
        except bucket.BucketError as error:
            raise RunError(ExitCode.INPUT_NOT_REACHABLE, f"output.uri: {error}") from error

    def _read(self, checkpoint: epath.Path, shapes: Any) -> tuple[Any, Place]:
        try:
            # One process looks at the sizes for all: a folder in a bucket is slow to list.
            marker = (committed.read_marker if jax.process_index() else committed.read_whole)(checkpoint)
        except DamagedError as error:
            raise RunError(ExitCode.FAILED, str(error)) from error
        state = self._arrays.restore(checkpoint / _STATE, args=ocp.args.StandardRestore(shapes))
        return state, Place(marker.step, marker.cursor, marker.data, marker.base)

    def _write(self, folder: epath.Path, state: Any) -> "Future[Any]":
        """Copy to the host, and write from there. On a CPU the copy is the buffer; JAX then does not give it away."""
        failed = Future[Any]()
        try:
            parts = asyncio.run(self._arrays.async_save(folder, args=ocp.args.StandardSave(state))) or []
        except Exception as error:
            failed.set_exception(error)
            return failed
        return self._waiting.submit(lambda: [part.result() for part in parts])

    def _conclude(self, writing: _Writing) -> None:
        self._writing = None
        try:
            together(writing.written.result)
            self._first(lambda: self._commit(writing))
        except RunError as error:
            self._give_up(writing.place.step, error)
            return
        self.newest = writing.place.step
        if writing.score is not None:
            self.best = max(self.best, writing.score)

    def _give_up(self, step: int, error: RunError) -> None:
        """Tell a save that could not be made, and free what it took."""
        self.failed += 1
        free = _free_bytes(self._folder)
        if jax.process_index() == 0:
            if free is not None:  # a bucket has room, and one that does not answer would be asked for a minute
                with suppress(OSError):
                    committed.remove(self._folder / str(step))
            left = "" if free is None else f", and {free:,} bytes are free"
            kept = "there is none yet" if self.newest is None else f"the newest stays that of step {self.newest}"
            text = "checkpoint of step %d could not be written to %s: %s%s; %s"
            log.warning(text, step, self._folder, " ".join(error.message.split())[:_TOLD], left, kept)


def _free_bytes(folder: epath.Path) -> int | None:
    """None where it is not known: in a bucket."""
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return None


def restore_part(checkpoint: epath.Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Some parts of a saved state, by the names of its fields, in the dtypes and shardings of `wanted`; the rest is not
    read.
    """
    arguments = ocp.args.PyTreeRestore(
        item=wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted), partial_restore=True
    )
    # By the handler, for a Checkpointer would look in a bucket for a marker that is not ours.
    with closing(ocp.PyTreeCheckpointHandler()) as handler:
        found: dict[str, Any] = handler.restore(bucket.absolute(checkpoint) / _STATE, args=arguments)
    return found


def shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """What an array will be, without its values: it can be restored to that."""
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
