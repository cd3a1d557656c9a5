"""The same samples wherever the rows live."""

import jax.numpy as jnp
import numpy as np
import pytest

from trainer.arrays.truncation import Truncation
from trainer.mesh import rows_to_global
from trainer.model.config import read_model_config
from trainer.model.weights import load_params, random_params
from trainer.rollout import Rollout
from trainer.rollout.program import Draw, Program, Work, advance, begin

PROMPTS = [
    [5, 6, 7],
    [9, 8, 7, 6, 5, 4, 3],
    [11],
    [3, 14, 15, 92, 65],
    [35, 89, 79, 32],
    [38, 46],
    [26, 43, 38, 3],
    [77] * 9,
]


def samples_on(folder, mesh, sampling, prompts, samples, **options):
    config = read_model_config(folder)
    rollout = Rollout(config, mesh, sampling, stop_ids=(1, 2, 70, 71), pad_id=0, compute_dtype=jnp.float32, **options)
    params = load_params(folder, config, mesh, jnp.float32)
    return rollout.generate(params, prompts, range(len(prompts)), 2, 11, 16, samples=samples)


def assert_same(one, other):
    for name, left, right in zip(one._fields, one, other, strict=True):
        if name.endswith("logprobs"):  # the one thing that tells in which order numbers were added up
            np.testing.assert_allclose(left, right, atol=1e-5, rtol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.fixture(scope="module")
def alone(oracles, mesh_of, sampling_of):
    """Eight rows a prompt on one device."""
    return samples_on(oracles / "qwen2-untied", mesh_of(1, 1, 1), sampling_of(20, 2.0), PROMPTS, 8)


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 4), (1, 2, 4), (4, 1, 2)])
def test_samples_do_not_depend_on_the_mesh(oracles, mesh_of, sampling_of, alone, shape):
    """dp, fsdp and tp in any mixture give exactly the tokens, lengths and ends of one device."""
    many = samples_on(oracles / "qwen2-untied", mesh_of(*shape), sampling_of(20, 2.0), PROMPTS, 8)
    assert_same(alone, many)
    assert 0 < alone.finished.mean() < 1
    assert len({tuple(row) for row in alone.tokens}) > 60


@pytest.mark.parametrize("shape", [(2, 1, 1), (4, 1, 1), (2, 2, 2), (1, 8, 1)])
def test_groups_cut_by_a_shard_have_the_same_samples(oracles, mesh_of, sampling_of, alone, shape):
    """Three prompts of eight rows over 2, 4 or 8 shards cut groups, and nothing changes."""
    many = samples_on(oracles / "qwen2-untied", mesh_of(*shape), sampling_of(20, 2.0), PROMPTS[:3], 8)
    for name in ("tokens", "lengths", "finished"):
        np.testing.assert_array_equal(getattr(alone, name)[:24], getattr(many, name), err_msg=name)


def test_rows_that_do_not_fill_the_shards_are_padded_and_dropped(oracles, mesh_of, sampling_of, alone):
    """Five prompts of one row on eight shards come back as five rows."""
    folder, sampling = oracles / "qwen2-untied", sampling_of(20, 2.0)
    one = samples_on(folder, mesh_of(1, 1, 1), sampling, PROMPTS[:5], 1)
    many = samples_on(folder, mesh_of(4, 2, 1), sampling, PROMPTS[:5], 1)
    assert_same(one, many)
    np.testing.assert_array_equal(one.tokens, alone.tokens[:40:8])


def test_weights_gathered_layer_by_layer_give_the_same_samples(oracles, mesh_of, sampling_of, alone):
    """Gathering the weights for every token instead of once changes nothing."""
    folder, mesh = oracles / "qwen2-untied", mesh_of(1, 4, 2)
    many = samples_on(folder, mesh, sampling_of(20, 2.0), PROMPTS, 8, gather_weights=False)
    assert_same(alone, many)


@pytest.mark.parametrize(("whole", "gathers"), [(True, False), (False, True)])
def test_weights_travel_once_a_pass(oracles, mesh_of, whole, gathers):
    """With `gather_weights` no weight is gathered inside the loop over tokens; without it, some are."""
    config, mesh = read_model_config(oracles / "qwen2-untied"), mesh_of(1, 8, 1)
    program = Program(
        config=config,
        mesh=mesh,
        longest=8,
        temperature=1.0,
        truncation=Truncation(),
        stop_ids=(1,),
        pad_id=0,
        compute_dtype=jnp.float32,
        gather_weights=whole,
    )
    work = Work(
        tokens=np.zeros((8, 16), np.int32),
        lengths=np.ones(8, np.int32),
        slot_of_block=np.zeros(8, np.int32),
        prompt_ids=np.zeros((8, 4), np.uint32),
        samples=np.zeros((8, 4), np.uint32),
        wanted=np.ones((8, 4), bool),
    )
    work = Work(*(rows_to_global(mesh, array) for array in work))
    params = random_params(config, 0, mesh, jnp.float32)
    draw, asked = Draw(np.uint32(0), np.uint32(0)), rows_to_global(mesh, np.zeros(mesh.size, bool))
    read, state = begin(program, params, work, draw, False, True)
    compiled = advance.lower(program, read, work, state, draw, np.int32(2), asked, False).compile().as_text()
    loops, _ = compiled.split("\nENTRY ")
    assert ("all-gather" in loops) == gathers
