"""The mask of top-k, top-p and min-p: worked by hand, against sorting, and with the vocabulary split over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from truncating import kept_by_sorting

from trainer.arrays.truncation import Truncation, kept

CASES = [(5, 1.0, 0.0), (1, 1.0, 0.0), (0, 0.9, 0.0), (0, 0.2, 0.0), (0, 1.0, 0.05), (40, 0.7, 0.02), (0, 0.999, 1.0)]


def test_masks_worked_by_hand() -> None:
    """Of chances 0.5, 0.25, 0.15, 0.1: top-p is reached by the token that crosses it, over what top-k left."""
    logits = jnp.log(jnp.float32([0.15, 0.5, 0.1, 0.25]))

    def letters(**given) -> list[int]:
        return np.flatnonzero(kept(logits, Truncation(**given))).tolist()

    assert letters() == letters(top_k=4) == letters(top_k=9) == [0, 1, 2, 3]
    assert letters(top_k=2) == [1, 3]
    assert letters(top_p=0.49) == [1]
    assert letters(top_p=0.6) == [1, 3]
    assert letters(top_p=0.8) == [0, 1, 3]
    assert letters(top_k=3, top_p=0.8) == [1, 3]  # 0.75 of the 0.9 that are left is 0.83
    assert letters(min_p=0.29) == [0, 1, 3]
    assert letters(top_p=0.6, min_p=0.6) == [1]


def test_tokens_as_likely_as_the_last_one_stay() -> None:
    """Two logits are equal at the border of top-k 2: both stay, and of equals everywhere all do."""
    assert kept(jnp.float32([1.0, 3.0, 1.0, -2.0]), Truncation(top_k=2)).tolist() == [True, True, True, False]
    assert kept(jnp.zeros(6, jnp.float32), Truncation(top_k=1, top_p=0.1, min_p=1.0)).all()


@pytest.mark.parametrize(("top_k", "top_p", "min_p"), CASES)
@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0])
def test_the_mask_is_that_of_sorting(top_k: int, top_p: float, min_p: float, spread: float) -> None:
    """Flat, ordinary and peaked rows of 500 logits of both signs keep exactly the tokens that sorting keeps."""
    rows = (np.random.default_rng(1).normal(size=(20, 500)) * spread).astype(np.float32)
    mask = np.asarray(jax.jit(kept, static_argnums=1)(jnp.asarray(rows), Truncation(top_k, top_p, min_p)))
    want = [kept_by_sorting(row.astype(np.float64), top_k, top_p, min_p) for row in rows]
    np.testing.assert_array_equal(mask, want)


@pytest.mark.parametrize(("top_k", "top_p", "min_p"), CASES)
def test_a_split_vocabulary_is_truncated_as_a_whole(mesh_of, top_k: int, top_p: float, min_p: float) -> None:
    """With the vocabulary over 4 devices the mask is that of one device, and no device is handed the others' part."""
    rows = (np.random.default_rng(2).normal(size=(6, 512)) * 4).astype(np.float32)
    truncation = Truncation(top_k, top_p, min_p)
    split = jax.device_put(rows, NamedSharding(mesh_of(2, 1, 4), PartitionSpec(("dp", "fsdp"), "tp")))
    program = jax.jit(kept, static_argnums=1).lower(split, truncation).compile()
    np.testing.assert_array_equal(np.asarray(program(split)), np.asarray(kept(jnp.asarray(rows), truncation)))
    assert "all-gather" not in program.as_text()
