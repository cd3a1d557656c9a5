"""The compiled programs of one pass: read each prompt once, then sample until every row has ended.

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

from trainer.arrays.largest import index_of_largest
from trainer.arrays.logprobs import logit_of
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


class Read(NamedTuple):
    """What the loop only looks at: weights as decoding wants them, and each block's prompt with its length."""

    weights: Params
    prompt: KeysValues
    lengths: jax.Array


class State(NamedTuple):
    """What the loop carries: the first `known` tokens of every row are chosen, and `alive` rows have not ended.

    [block, row], and [block, row, token]: `tokens`; `sampled_logprobs` and `full_logprobs`, as in `Completions`.
    """

    known: jax.Array
    tokens: jax.Array
    sampled_logprobs: jax.Array
    full_logprobs: jax.Array
    lengths: jax.Array
    alive: jax.Array
    finished: jax.Array
    suffix: KeysValues


class Done(NamedTuple):
    """What is left of a `State` at the end; `steps` tokens were computed for every row."""

    tokens: jax.Array
    lengths: jax.Array
    finished: jax.Array
    steps: jax.Array
    sampled_logprobs: jax.Array
    full_logprobs: jax.Array


class Drawn(NamedTuple):
    """One token of every row, [block, row]."""

    tokens: jax.Array
    sampled_logprobs: jax.Array
    full_logprobs: jax.Array


class Draw(NamedTuple):
    """What the samples of a pass depend on, beside its prompts; uint32 scalars."""

    seed: Any
    step: Any


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


def stages(longest: int) -> list[int]:
    """Room for the suffix, in tokens: it starts small and doubles, so that a token pays for the tokens before it.

    Attention reads all the room there is, masked or not; the last stage has `longest`.
    """
    sizes = [longest]
    while sizes[0] // 2 >= SMALLEST_STAGE:
        sizes.insert(0, -(-sizes[0] // 2))
    return sizes


def done_of(state: State) -> Done:
    sampled, full = state.sampled_logprobs, state.full_logprobs
    return Done(state.tokens, state.lengths, state.finished, state.known, sampled, full)


@partial(jax.jit, static_argnums=(0, 4, 5))
def begin(
    program: Program, params: Params, work: Work, draw: Draw, greedy: bool, one_to_one: bool
) -> tuple[Read, State]:
    """Read the prompts and choose each row's first token.

    `one_to_one`: block i of a shard continues slot i, and nothing has to be handed out.
    """
    config, mesh, dtype = program.config, program.mesh, program.compute_dtype
    weights = weights_for_decoding(params, mesh, dtype, whole=program.gather_weights)
    last, prompt = prefill(weights, config, work.tokens, work.lengths, mesh=mesh, dtype=dtype)
    read = Read(weights, prompt, work.lengths)
    if not one_to_one:
        last, prompt, lengths = _hand_out(mesh, work.slot_of_block, last, prompt, work.lengths)
        read = Read(weights, prompt, lengths)
    suffix = empty_suffix(read.prompt, work.wanted.shape[1], stages(program.longest)[0], mesh)
    state = _taker(program, weights, work, draw, greedy)(_start(program, work, suffix), last[:, None])
    return read, _placed(mesh, state)


@partial(jax.jit, static_argnums=(0, 7), donate_argnums=3)
def advance(
    program: Program, read: Read, work: Work, state: State, draw: Draw, until: Any, asked: Any, greedy: bool
) -> tuple[State, jax.Array]:
    """Go on until `until` tokens of every row are known, or all have ended; not at all where a shard `asked` to stop.

    `asked` is bool [shard]. The second result is bool [2]: whether a row of any process has not ended, and whether any
    asked: every process reads the same there. The state has room for `until` tokens, and is given up.
    """
    stop = asked.any()
    state = _advanced(program, read, work, state, draw, jnp.where(stop, state.known, until), greedy)
    return state, jnp.stack([state.alive.any(), stop])


@partial(jax.jit, static_argnums=1)
def enlarge(state: State, room: int) -> State:
    """The same state with room for the keys and values of `room` tokens."""
    return state._replace(suffix=grown(state.suffix, room))


def _advanced(
    program: Program, read: Read, work: Work, state: State, draw: Draw, until: jax.Array, greedy: bool
) -> State:
    take = _taker(program, read.weights, work, draw, greedy)

    def unfinished(state: State) -> jax.Array:
        return (state.known < until) & state.alive.any()

    def read_and_take(state: State) -> State:
        newest = jax.lax.dynamic_index_in_dim(state.tokens, state.known - 1, axis=2, keepdims=False)
        hidden, suffix = decode(
            read.weights,
            program.config,
            newest,
            read.lengths,
            state.known - 1,
            read.prompt,
            state.suffix,
            mesh=program.mesh,
        )
        return take(state._replace(suffix=suffix), hidden)

    return _placed(program.mesh, jax.lax.while_loop(unfinished, read_and_take, state))


def _start(program: Program, work: Work, suffix: KeysValues) -> State:
    blocks, rows = work.wanted.shape
    none = jnp.zeros((blocks, rows, program.longest), jnp.float32)
    return State(
        known=jnp.int32(0),
        tokens=jnp.full(none.shape, program.pad_id),
        sampled_logprobs=none,
        full_logprobs=none,
        lengths=jnp.zeros_like(work.wanted, jnp.int32),
        alive=work.wanted,
        finished=jnp.zeros_like(work.wanted),
        suffix=suffix,
    )


def _taker(
    program: Program, weights: Params, work: Work, draw: Draw, greedy: bool
) -> Callable[[State, jax.Array], State]:
    """Choose the next token of every row from hidden states [block, row or 1, embed] and enter it into the state."""
    choose = _chooser(program, weights, work, draw, greedy)

    def take(state: State, hidden: jax.Array) -> State:
        drawn = choose(hidden, state.known)
        chosen = jnp.where(state.alive, drawn.tokens, jnp.int32(program.pad_id))
        stopped = jnp.zeros_like(state.alive)
        for stop_id in program.stop_ids:
            stopped |= state.alive & (chosen == stop_id)

        def enter(array: jax.Array, new: jax.Array) -> jax.Array:
            entered: jax.Array = jax.lax.dynamic_update_index_in_dim(array, new, state.known, axis=2)
            return entered

        return State(
            known=state.known + 1,
            tokens=enter(state.tokens, chosen),
            sampled_logprobs=enter(state.sampled_logprobs, jnp.where(state.alive, drawn.sampled_logprobs, 0.0)),
            full_logprobs=enter(state.full_logprobs, jnp.where(state.alive, drawn.full_logprobs, 0.0)),
            lengths=state.lengths + state.alive.astype(jnp.int32),
            alive=state.alive & ~stopped,
            finished=state.finished | stopped,
            suffix=state.suffix,
        )

    return take


def _chooser(
    program: Program, weights: Params, work: Work, draw: Draw, greedy: bool
) -> Callable[[jax.Array, jax.Array], Drawn]:
    """Token number `index` of every row from hidden states; log-probabilities are 0 where the choice is greedy.

    Sampling is by the Gumbel trick: argmax(logits / temperature + noise) has the softmax's distribution. Each row and
    token has a key of its own, so that the noise does not depend on where the row lives.
    """
    keys, shape = _row_keys(work, draw), work.wanted.shape

    def noise(key: jax.Array, index: jax.Array) -> jax.Array:
        return jax.random.gumbel(jax.random.fold_in(key, index), (program.config.vocab,), jnp.float32)

    def choose(hidden: jax.Array, index: jax.Array) -> Drawn:
        logits = jnp.einsum("bre,ve->brv", hidden, head(weights), preferred_element_type=jnp.float32)
        logits = constrain(logits, program.mesh, DATA, None, "tp")
        if greedy:
            best = jnp.broadcast_to(index_of_largest(logits), shape)
            return Drawn(best, jnp.zeros(shape), jnp.zeros(shape))
        logits = logits / program.temperature
        allowed = logits
        if program.truncation.active:
            allowed = jnp.where(kept(logits, program.truncation), logits, -jnp.inf)
        drawn = jax.vmap(jax.vmap(noise, (0, None)), (0, None))(keys, index)
        chosen = index_of_largest(allowed + constrain(drawn, program.mesh, DATA, None, "tp"))
        logit = logit_of(logits, chosen)
        return Drawn(chosen, *(logit - jax.nn.logsumexp(part, axis=-1) for part in (allowed, logits)))

    return choose


def _row_keys(work: Work, draw: Draw) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(draw.seed), draw.step)

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


def _placed(mesh: Mesh, state: State) -> State:
    """Rows on the shards where their prompts are; so that a state fits every program, whichever it comes from."""
    whole = state._replace(known=None, suffix=None)  # type: ignore[arg-type]
    rows = jax.lax.with_sharding_constraint(whole, jax.tree.map(lambda _: batch_sharding(mesh), whole))
    placed: State = rows._replace(known=state.known, suffix=state.suffix)
    return placed
