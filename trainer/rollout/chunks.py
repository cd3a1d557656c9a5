"""The compiled loop in chunks, so that the host sees what a program cannot: that a run is to stop, and ends in text.

In: the program's work, a function that tells where a row ends, one that tells whether to stop. Out: `Done`. It refuses
to know what ends a row, and why to stop.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from trainer.distributed import Stopped
from trainer.mesh import rows_to_global
from trainer.model.decoder import Params
from trainer.rollout.program import Done, Draw, Program, State, Work, advance, begin, done_of, enlarge, stages

CHUNK = 32
"""Tokens between two looks: a row computes at most so many for nothing after its end, and the host waits once: a
fraction of a millisecond beside the many that the tokens take."""

End = Callable[[Sequence[int], int], int | None]
"""How many of a row's tokens are kept, given how many were looked at before; None: the row goes on."""

Asked = Callable[[], bool]
"""Whether this process wants to stop; asked once a chunk."""


def complete(
    program: Program,
    params: Params,
    work: Work,
    draw: Draw,
    end: End | None,
    asked: Asked,
    *,
    greedy: bool,
    one_to_one: bool,
) -> Done:
    """Read the prompts and complete all rows. All processes call it together, and end together.

    Where `end` ended a row, tokens and log-probabilities behind its length are left as they were sampled. Raises
    Stopped in all processes where one was `asked` to stop.
    """
    shards = len(program.mesh.local_devices) // program.mesh.shape["tp"]
    read, state = begin(program, params, work, draw, greedy, one_to_one)
    state, known, going = _ended(program, state, 0, end), 1, True
    for room in stages(program.longest):
        if state.suffix.keys.shape[-2] < room:
            state = enlarge(state, room)
        while going and known < room:
            seen, known = known, min(known + CHUNK, room)
            stop = rows_to_global(program.mesh, np.full(shards, asked()))
            # Computed from the rows of all processes, so that all leave the loop at the same call.
            state, told = advance(program, read, work, state, draw, np.int32(known), stop, greedy)
            going, stopping = np.asarray(told).tolist()
            if stopping:
                raise Stopped
            state = _ended(program, state, seen, end)
    return done_of(state)


def _ended(program: Program, state: State, seen: int, end: End | None) -> State:
    """End the rows of this process in which `end` finds one among the tokens after the first `seen`."""
    if end is None:
        return state
    tokens, *rest = (local_part(array) for array in (state.tokens, state.lengths, state.alive, state.finished))
    lengths, alive, finished = (array.copy() for array in rest)
    for block, row in np.argwhere(lengths > seen):
        kept = end(tokens[block, row, : lengths[block, row]].tolist(), seen)
        if kept is not None:
            lengths[block, row], alive[block, row], finished[block, row] = kept, False, True
    new_lengths, new_alive, new_finished = (rows_to_global(program.mesh, array) for array in (lengths, alive, finished))
    return state._replace(lengths=new_lengths, alive=new_alive, finished=new_finished)


def local_part(array: jax.Array) -> np.ndarray:
    """What this process has of an array spread by its first axis, each part once however many tp devices hold it."""
    shards = {shard.index[0].indices(array.shape[0])[0]: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
