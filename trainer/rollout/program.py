"""The compiled program of one pass: read each prompt once, then sample until every row has ended.

Comes in: global arrays of prompts and rows. Goes out: global arrays of completions. Refuses to know: processes, and how
rows came to their shards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from trainer.arrays.truncation import Truncation, kept
from trainer.mesh import DATA, batch_sharding
from trainer.model.config import ModelConfig
from trainer.model.decoder import Params, head
from trainer.model.decoding import KeysValues, decode, empty_suffix, grown, prefill, weights_for_decoding
from trainer.model.sharding import constrain, spec_on

SMALLEST_STAGE = 128


class Work(NamedTuple):
    """Global arrays, spread over the data shards by their first axis."""

    tokens: Any
    """int32 [slot, token]: prompts, padded on the left."""
    lengths: Any
    """int32 [slot]: real tokens of each."""
    slot_of_block: Any
    """int32 [block]: the slot, counted within the shard, whose prompt a block continues."""
    prompt_ids: Any
    """uint32 [block, row]: number of the row's prompt in the step."""
    samples: Any
    """uint32 [block, row]: number of the row in its group."""
    wanted: Any
    """bool [block, row]: false for rows that only fill up the shards."""


class Done(NamedTuple):
    """Tokens int32 [row, token], lengths int32 [row], finished bool [row], and how many tokens were computed a row."""

    tokens: jax.Array
    lengths: jax.Array
    finished: jax.Array
    steps: jax.Array


class State(NamedTuple):
    """What the loop carries: the first `known` tokens of every row are chosen, and `alive` rows have not ended."""

    known: jax.Array
    tokens: jax.Array
    lengths: jax.Array
    alive: jax.Array
    finished: jax.Array
    suffix: KeysValues


@dataclass(frozen=True, slots=True)
class Program:
    """All that is fixed for a run; compiled once for each shape of `Work`."""

    config: ModelConfig
    mesh: Mesh
    longest: int
    temperature: float
    truncation: Truncation
    stop_ids: tuple[int, ...]
    pad_id: int
    compute_dtype: Any
    gather_weights: bool

    def __call__(self, params: Params, work: Work, seed: Any, step: Any, *, greedy: bool, one_to_one: bool) -> Done:
        """Complete all rows; see `Done`."""
        done: Done = complete(self, params, work, seed, step, greedy, one_to_one)
        return done


def stages(longest: int) -> list[int]:
    """Room for the suffix, in tokens: it starts small and doubles, so that a token pays for the tokens before it.

    Attention reads all the room there is, masked or not; the last stage has `longest`.
    """
    sizes = [longest]
    while sizes[0] // 2 >= SMALLEST_STAGE:
        sizes.insert(0, -(-sizes[0] // 2))
    return sizes


@partial(jax.jit, static_argnums=(0, 5, 6))
def complete(
    program: Program, params: Params, work: Work, seed: jax.Array, step: jax.Array, greedy: bool, one_to_one: bool
) -> Done:
    """Read the prompts and complete all rows; `Program.__call__` under jit, so that it can be lowered too.

    `one_to_one`: block i of a shard continues slot i, and nothing has to be handed out.
    """
    config, mesh, dtype = program.config, program.mesh, program.compute_dtype
    weights = weights_for_decoding(params, config, mesh, dtype, whole=program.gather_weights)
    last, prompt = prefill(weights, config, work.tokens, work.lengths, mesh=mesh, dtype=dtype)
    lengths = work.lengths
    if not one_to_one:
        last, prompt, lengths = _hand_out(mesh, work.slot_of_block, last, prompt, lengths)
    take = _taker(program, weights, work, seed, step, greedy)

    def unfinished(state: State, room: int) -> jax.Array:
        return (state.known < room) & state.alive.any()

    def read_and_take(state: State) -> State:
        newest = jax.lax.dynamic_index_in_dim(state.tokens, state.known - 1, axis=2, keepdims=False)
        hidden, suffix = decode(weights, config, newest, lengths, state.known - 1, prompt, state.suffix, mesh=mesh)
        return take(state._replace(suffix=suffix), hidden)

    room, *larger = stages(program.longest)
    state = take(_start(program, work, empty_suffix(prompt, work.wanted.shape[1], room, mesh)), last[:, None])
    state = jax.lax.while_loop(partial(unfinished, room=room), read_and_take, state)
    for room in larger:
        state = state._replace(suffix=grown(state.suffix, room))
        state = jax.lax.while_loop(partial(unfinished, room=room), read_and_take, state)
    tokens, lengths, finished = (_by_row(mesh, array) for array in (state.tokens, state.lengths, state.finished))
    return Done(tokens, lengths, finished, state.known)


def _start(program: Program, work: Work, suffix: KeysValues) -> State:
    blocks, rows = work.wanted.shape
    return State(
        known=jnp.int32(0),
        tokens=constrain(jnp.full((blocks, rows, program.longest), program.pad_id), program.mesh, DATA, None, None),
        lengths=jnp.zeros_like(work.wanted, jnp.int32),
        alive=work.wanted,
        finished=jnp.zeros_like(work.wanted),
        suffix=suffix,
    )


def _taker(
    program: Program, weights: Params, work: Work, seed: jax.Array, step: jax.Array, greedy: bool
) -> Callable[[State, jax.Array], State]:
    """Choose the next token of every row from hidden states [block, row or 1, embed] and enter it into the state.

    Sampling is by the Gumbel trick: argmax(logits / temperature + noise) has the softmax's distribution. Each row and
    token has a key of its own, so that the noise does not depend on where the row lives.
    """
    keys = _row_keys(work, seed, step)

    def noise(key: jax.Array, index: jax.Array) -> jax.Array:
        return jax.random.gumbel(jax.random.fold_in(key, index), (program.config.vocab,), jnp.float32)

    def choose(hidden: jax.Array, index: jax.Array) -> jax.Array:
        logits = jnp.einsum("bre,ve->brv", hidden, head(weights), preferred_element_type=jnp.float32)
        logits = constrain(logits, program.mesh, DATA, None, "tp")
        if not greedy:
            logits = logits / program.temperature
            if program.truncation.active:
                logits = jnp.where(kept(logits, program.truncation), logits, -jnp.inf)
            drawn = jax.vmap(jax.vmap(noise, (0, None)), (0, None))(keys, index)
            logits = logits + constrain(drawn, program.mesh, DATA, None, "tp")
        return jnp.broadcast_to(jnp.argmax(logits, axis=-1).astype(jnp.int32), work.wanted.shape)

    def take(state: State, hidden: jax.Array) -> State:
        chosen = jnp.where(state.alive, choose(hidden, state.known), jnp.int32(program.pad_id))
        stopped = jnp.zeros_like(state.alive)
        for stop_id in program.stop_ids:
            stopped |= state.alive & (chosen == stop_id)
        return State(
            known=state.known + 1,
            tokens=jax.lax.dynamic_update_index_in_dim(state.tokens, chosen, state.known, axis=2),
            lengths=state.lengths + state.alive.astype(jnp.int32),
            alive=state.alive & ~stopped,
            finished=state.finished | stopped,
            suffix=state.suffix,
        )

    return take


def _row_keys(work: Work, seed: jax.Array, step: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(seed), step)

    def of_row(prompt_id: jax.Array, sample: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, prompt_id), sample)

    return jax.vmap(jax.vmap(of_row))(work.prompt_ids, work.samples)


def _hand_out(
    mesh: Mesh, slot_of_block: jax.Array, last: jax.Array, prompt: KeysValues, lengths: jax.Array
) -> tuple[jax.Array, KeysValues, jax.Array]:
    """Give each block its slot's prompt, inside each shard: where shards cut groups unevenly, blocks share slots."""
    by_shard: Any = PartitionSpec(DATA)
    kept: Any = spec_on(mesh, prompt.keys.shape, None, DATA, "tp", None, None)
    specs = (by_shard, KeysValues(kept, kept), by_shard)

    def local(
        slots: jax.Array, last: jax.Array, prompt: KeysValues, lengths: jax.Array
    ) -> tuple[jax.Array, KeysValues, jax.Array]:
        return last[slots], KeysValues(prompt.keys[:, slots], prompt.values[:, slots]), lengths[slots]

    handed: tuple[jax.Array, KeysValues, jax.Array] = jax.shard_map(
        local, mesh=mesh, in_specs=(by_shard, *specs), out_specs=specs
    )(slot_of_block, last, prompt, lengths)
    return handed


def _by_row(mesh: Mesh, array: jax.Array) -> jax.Array:
    """[block, row, ...] -> [row, ...], on the shards where the rows are."""
    rows = array.reshape(-1, *array.shape[2:])
    placed: jax.Array = jax.lax.with_sharding_constraint(rows, batch_sharding(mesh))
    return placed
