"""Which shard holds which rows and reads which prompts; the sizes of buckets and stages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.rollout.layout import bucket, lay_out, whole_prompts
from trainer.rollout.program import stages

COUNTS = st.integers(1, 12)


@given(prompts=COUNTS, samples=COUNTS, shards=st.sampled_from([1, 2, 3, 4, 8]))
def test_each_shard_reads_exactly_the_prompts_of_its_rows_once(prompts, samples, shards):
    """For any numbers, a shard's slots are the prompts it holds rows of, each once, and every row finds its own."""
    prompts = whole_prompts(prompts, samples, shards)
    layout = lay_out(prompts, samples, shards)
    per_shard = prompts * samples // shards
    assert layout.block * layout.blocks_per_shard == per_shard
    needed = [[row // samples for row in range(s * per_shard, (s + 1) * per_shard)] for s in range(shards)]
    assert layout.slots_per_shard == max(len(set(rows)) for rows in needed)
    for shard, rows in enumerate(needed):
        first = shard * layout.slots_per_shard
        slots = layout.prompt_of_slot[first : first + layout.slots_per_shard]
        used = slots[: len(set(rows))]
        assert list(used) == sorted(set(rows))
        for place, prompt in enumerate(rows):
            block = shard * layout.blocks_per_shard + place // layout.block
            assert used[layout.slot_of_block[block]] == prompt


def test_a_group_cut_by_a_shard_is_read_by_both():
    """Three prompts of eight rows over two shards: the middle prompt is read on both, in blocks of four rows."""
    layout = lay_out(3, 8, 2)
    assert (layout.block, layout.blocks_per_shard, layout.slots_per_shard) == (4, 3, 2)
    assert layout.prompt_of_slot == (0, 1, 1, 2)
    assert layout.slot_of_block == (0, 0, 1, 0, 1, 1)
    assert not layout.one_to_one


def test_whole_groups_need_no_handing_out():
    """Where every shard holds whole groups, each prompt is one slot and one block."""
    layout = lay_out(4, 8, 2)
    assert (layout.block, layout.slots_per_shard, layout.one_to_one) == (8, 2, True)


def test_rows_that_do_not_divide_are_refused():
    """Rows are never dropped or added in silence."""
    with pytest.raises(ValueError, match="9 rows do not divide over 2 shards"):
        lay_out(3, 3, 2)


@given(prompts=st.integers(0, 40), samples=COUNTS, shards=st.sampled_from([1, 2, 3, 4, 8]))
def test_padding_to_whole_prompts_is_the_smallest(prompts, samples, shards):
    """The padded number of prompts is the first at or above the given one (and one) whose rows divide."""
    want = next(n for n in range(max(1, prompts), 1000) if n * samples % shards == 0)
    assert whole_prompts(prompts, samples, shards) == want


@given(length=st.integers(0, 4096), limit=st.integers(1, 4096))
def test_a_bucket_holds_its_length_and_wastes_a_third_at_most(length, limit):
    """A bucket is at least the length and at most the limit; above the smallest, under a third of it is padding."""
    if length > limit:
        with pytest.raises(ValueError, match="do not fit"):
            bucket(length, limit)
        return
    size = bucket(length, limit)
    assert length <= size <= limit
    assert size <= 32 or length > size * 2 // 3


def test_buckets_are_few():
    """All lengths up to 1024 share eleven sizes."""
    sizes = sorted({bucket(length, 1024) for length in range(1025)})
    assert sizes == [32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]


def test_stages_double_up_to_the_longest_completion():
    """The suffix starts with 128 to 255 tokens of room and doubles; short completions have one stage."""
    assert stages(1024) == [128, 256, 512, 1024]
    assert stages(300) == [150, 300]
    assert stages(255) == [255]
    assert stages(1) == [1]
