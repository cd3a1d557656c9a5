"""Completions of shared prompts through the decoder: every prompt once for all its rows, and rows without padding.

Comes in: `Params` and `Blocks`. Goes out: the hidden state that each completion token is predicted from. Refuses to
know: logits, losses, who sampled.

A block is a prompt with the rows that continue it, as many in each. Everything but attention works token by token, so
the decoder's layers see one line a shard: the tokens of its prompts, then the real tokens of its rows, packed. Only
attention lays the rows out again, beside the keys and values of their prompt, under one softmax. Axes: shard (a data
shard), block and row (of all shards), token, place (of a completion token on its shard's line).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trainer.contract.runner import Remat
from trainer.model.config import ModelConfig
from trainer.model.decoder import Attend, Params, causal_attention, hidden_states

UNSEEN = -1e30
"""The score of a token that is not seen; finite, so that a maximum over unseen ones is a number."""


class Blocks(NamedTuple):
    """int32 arrays; a shard's blocks stand beside each other, and its rows in the order of their blocks.

    `prompts` [block, token], padded on the left to `prompt_lengths` [block]; `completions` [row, token], padded on the
    right to `lengths` [row]. `picked` [shard, place] tells which tokens of a shard's rows are computed, counted
    row · tokens + token: all real ones in their order, then places without a token, counted beyond the end. With as
    many places as the rows have tokens, padding included, it counts them all, and nothing is packed.
    """

    prompts: jax.Array
    prompt_lengths: jax.Array
    completions: jax.Array
    lengths: jax.Array
    picked: jax.Array

    @property
    def shards(self) -> int:
        return self.picked.shape[0]

    @property
    def rows_per_block(self) -> int:
        return self.completions.shape[0] // self.prompts.shape[0]

    @property
    def rows_per_shard(self) -> int:
        return self.completions.shape[0] // self.shards

    @property
    def whole(self) -> bool:
        """True where completions are computed padding and all, each token where it stands."""
        return self.picked.shape[1] == self.rows_per_shard * self.completions.shape[1]


class Line(NamedTuple):
    """Where things are on the shards' lines, int32; what is nowhere is counted beyond the end.

    `picked` [shard, place] is the real token at each place, and `placed` [shard, row · token], its inverse. `begun`
    [shard, place] is the row that begins at a place, and `start` [shard, row], its inverse.
    """

    picked: jax.Array
    placed: jax.Array
    begun: jax.Array
    start: jax.Array


def line_of(blocks: Blocks) -> Line:
    shards, places = blocks.picked.shape
    rows, width = blocks.rows_per_shard, blocks.completions.shape[1]
    lengths = blocks.lengths.reshape(shards, rows)
    start = jnp.cumsum(lengths, axis=1, dtype=jnp.int32) - lengths
    if blocks.whole:
        start = jnp.broadcast_to(jnp.arange(rows, dtype=jnp.int32)[None] * width, lengths.shape)
    token = jnp.arange(width, dtype=jnp.int32)[None, None]
    real = (token < lengths[..., None]).reshape(shards, -1)
    placed = jnp.where(real, (start[..., None] + token).reshape(shards, -1), places)
    picked = jnp.where(real, blocks.picked, rows * width) if blocks.whole else blocks.picked
    begun = jnp.where((picked % width == 0) & (picked < rows * width), picked // width, rows)
    return Line(picked, placed, begun, jnp.where(lengths > 0, start, places))


def completion_states(
    params: Params,
    config: ModelConfig,
    blocks: Blocks,
    line: Line,
    *,
    mesh: jax.sharding.Mesh | None,
    compute_dtype: Any,
    remat: Remat,
) -> tuple[jax.Array, jax.Array]:
    """The state [shard, place, embed] that each picked token is predicted from, and these tokens, int32 [shard, place].

    What stands at a place without a token means nothing.
    """
    shards, width, longest = blocks.shards, blocks.prompts.shape[1], blocks.completions.shape[1]
    from_start = jnp.arange(width, dtype=jnp.int32)[None] - (width - blocks.prompt_lengths[:, None])
    there = jnp.minimum(blocks.picked, blocks.rows_per_shard * longest - 1)
    before = _at(blocks.prompt_lengths.reshape(shards, -1), there // longest // blocks.rows_per_block)
    prompts, targets = blocks.prompts.reshape(shards, -1), _at(blocks.completions.reshape(shards, -1), there)
    positions = jnp.maximum(from_start, 0).reshape(shards, -1), before + there % longest
    hidden = hidden_states(
        params,
        config,
        jnp.concatenate([prompts, targets], axis=1),
        jnp.concatenate(positions, axis=1),
        block_attention(blocks, line, from_start >= 0),
        mesh=mesh,
        compute_dtype=compute_dtype,
        remat=remat,
    )
    asked = prompts.shape[1]
    return _one_earlier(hidden[:, asked:], hidden[:, width - 1 : asked : width], blocks, line), targets


def _at(array: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take_along_axis(array, index, axis=1, mode="promise_in_bounds")


def _one_earlier(hidden: jax.Array, last: jax.Array, blocks: Blocks, line: Line) -> jax.Array:
    """The state one token before each place: of a row's first token that is the `last` [shard, block] of its prompt."""
    rows = blocks.rows_per_shard
    lasts = jnp.broadcast_to(last[:, :, None], (*last.shape[:2], blocks.rows_per_block, last.shape[2]))
    firsts = moved(lasts.reshape(blocks.shards, rows, -1), line.begun, line.start)
    shifted = jnp.pad(hidden[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return jnp.where((line.begun < rows)[..., None], firsts, shifted)


@jax.custom_vjp
def moved(array: jax.Array, index: jax.Array, inverse: jax.Array) -> jax.Array:
    """[shard, from, ...] -> [shard, to, ...] by `index` [shard, to], 0 where that is beyond the end.

    `inverse` [shard, from] leads back, so that the gradient is taken by index too: autodiff would scatter it.
    """
    taken: jax.Array = jax.vmap(lambda line, places: line.at[places].get(mode="fill", fill_value=0))(array, index)
    return taken


def _moved_forward(
    array: jax.Array, index: jax.Array, inverse: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return moved(array, index, inverse), (index, inverse)


def _moved_backward(kept: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, None, None]:
    index, inverse = kept
    return moved(cotangent, inverse, index), None, None


moved.defvjp(_moved_forward, _moved_backward)


def block_attention(blocks: Blocks, line: Line, real: jax.Array) -> Attend:
    """Attention on each shard's line; `real` [block, token] is false where a prompt is padded."""
    count, width = blocks.prompts.shape
    asked = count // blocks.shards * width
    attend_prompts = causal_attention(real)

    def of_prompts(line_part: jax.Array) -> jax.Array:
        return line_part[:, :asked].reshape(count, width, *line_part.shape[2:])

    def of_rows(line_part: jax.Array) -> jax.Array:
        laid = line_part[:, asked:]
        laid = laid if blocks.whole else moved(laid, line.placed, line.picked)
        return laid.reshape(count, blocks.rows_per_block, -1, *line_part.shape[2:])

    def attend(queries: jax.Array, keys: jax.Array, values: jax.Array) -> tuple[jax.Array, Any]:
        prompt_keys, prompt_values = of_prompts(keys), of_prompts(values)
        read = attend_prompts(of_prompts(queries), prompt_keys, prompt_values)[0]
        written = attend_to_prompt_and_row(
            of_rows(queries), prompt_keys, prompt_values, real, of_rows(keys), of_rows(values)
        )
        written = written.reshape(blocks.shards, -1, *queries.shape[2:])
        written = written if blocks.whole else moved(written, line.picked, line.placed)
        return jnp.concatenate([read.reshape(blocks.shards, asked, *queries.shape[2:]), written], axis=1), None

    return attend


def attend_to_prompt_and_row(
    queries: jax.Array,
    prompt_keys: jax.Array,
    prompt_values: jax.Array,
    real: jax.Array,
    keys: jax.Array,
    values: jax.Array,
) -> jax.Array:
    """One softmax in float32 over the prompt's tokens and the row's own up to the query's.

    `queries`, `keys`, `values` [block, row, token, head, head_dim], the prompt's [block, token, head, head_dim], `real`
    [block, token]. A prompt's scores for all rows of its block are one product.
    """
    blocks, rows, tokens, heads, head_dim = queries.shape
    kv_heads = keys.shape[3]
    grouped = queries.reshape(blocks, rows, tokens, kv_heads, heads // kv_heads, head_dim) * head_dim**-0.5
    over_prompt = jnp.where(real[:, None, None, None, None], _dot("brtkqd,bpkd->bkrqtp", grouped, prompt_keys), UNSEEN)
    causal = jnp.tril(jnp.ones((tokens, tokens), bool))[None, None, None, None]
    over_row = jnp.where(causal, _dot("brtkqd,brskd->bkrqts", grouped, keys), UNSEEN)
    top = jnp.maximum(over_prompt.max(axis=-1, keepdims=True), over_row.max(axis=-1, keepdims=True))
    shares = [jnp.exp(scores - jax.lax.stop_gradient(top)) for scores in (over_prompt, over_row)]
    total = shares[0].sum(axis=-1) + shares[1].sum(axis=-1)
    of_prompt, of_row = (share.astype(values.dtype) for share in shares)
    attended = _dot("bkrqtp,bpkd->bkrqtd", of_prompt, prompt_values) + _dot("bkrqts,brskd->bkrqtd", of_row, values)
    attended = (attended / total[..., None]).astype(queries.dtype)
    return attended.transpose(0, 2, 4, 1, 3, 5).reshape(queries.shape)


def _dot(equation: str, left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.einsum(equation, left, right, preferred_element_type=jnp.float32)
