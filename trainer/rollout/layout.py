"""Which data shard holds which rows, and so which prompts it must read: pure arithmetic over one process's prompts.

Comes in: numbers of prompts, samples and shards. Goes out: `RowLayout`. Refuses to know: tokens, devices, JAX.
"""

from dataclasses import dataclass
from math import gcd

SMALLEST_BUCKET = 32


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Rows in prompt-major order (row = prompt · samples + sample), the same number on every shard.

    A block is the largest run of rows that is of one prompt wherever a shard begins. A slot is a prompt that a shard
    reads: each shard has one for every prompt it holds rows of, and as many as the shard with the most.
    """

    rows: int
    block: int
    blocks_per_shard: int
    slots_per_shard: int
    prompt_of_slot: tuple[int, ...]
    """Local prompt of each slot, shard by shard; a slot without use repeats its shard's last prompt."""
    slot_of_block: tuple[int, ...]
    """Slot in its own shard of each block, shard by shard."""

    @property
    def one_to_one(self) -> bool:
        """True where slot i of every shard is the prompt of its block i, so that no slot is handed to several."""
        return self.slot_of_block == tuple(range(self.slots_per_shard)) * (self.rows // self._rows_per_shard)

    @property
    def _rows_per_shard(self) -> int:
        return self.block * self.blocks_per_shard


def lay_out(prompts: int, samples: int, shards: int) -> RowLayout:
    """Spread `prompts` · `samples` rows over `shards`; raises ValueError where the shards do not divide them."""
    rows = prompts * samples
    if rows % shards:
        raise ValueError(f"{rows} rows do not divide over {shards} shards")
    per_shard = rows // shards
    block = gcd(samples, per_shard)
    held = [[first // samples for first in range(s * per_shard, (s + 1) * per_shard, block)] for s in range(shards)]
    slots = [sorted(set(of_block)) for of_block in held]
    most = max(len(of_slot) for of_slot in slots)
    return RowLayout(
        rows=rows,
        block=block,
        blocks_per_shard=per_shard // block,
        slots_per_shard=most,
        prompt_of_slot=tuple(p for of_slot in slots for p in of_slot + of_slot[-1:] * (most - len(of_slot))),
        slot_of_block=tuple(of_slot.index(p) for of_block, of_slot in zip(held, slots, strict=True) for p in of_block),
    )


def whole_prompts(prompts: int, samples: int, shards: int) -> int:
    """The fewest prompts, at least `prompts` and one, whose rows divide over the shards."""
    unit = shards // gcd(samples, shards)
    return max(1, -(-prompts // unit)) * unit


def bucket(length: int, limit: int) -> int:
    """The static size for `length` tokens: 32, 48, 64, 96, 128, 192, …, never above `limit`.

    Every size is compiled once, so there are few; at most a third of one is padding. Raises ValueError where `length`
    is above `limit`.
    """
    if length > limit:
        raise ValueError(f"{length} tokens do not fit into {limit}")
    size = SMALLEST_BUCKET
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, limit)
