"""What is generated: against transformers, against the whole-row decoder, and against the softmax itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_rows import states_of

from trainer.distributed import Stopped
from trainer.model.config import read_model_config
from trainer.model.decoder import causal_attention, head, hidden_states
from trainer.model.decoding import KeysValues, decode, empty_suffix, prefill
from trainer.model.weights import load_params
from trainer.rollout import Rollout

NEVER: tuple[int, ...] = ()


def expected(folder):
    """The oracle's four unpadded prompts and their 24 greedy tokens."""
    with np.load(folder / "expected.npz") as numbers:
        rows = zip(numbers["input_ids"], numbers["attention_mask"], strict=True)
        return [row[: mask.sum()].tolist() for row, mask in rows], numbers["greedy"].astype(np.int32)


@pytest.fixture(scope="module")
def tied(oracles, mesh_of):
    """qwen2-tied on one device: config, mesh, weights, prompts."""
    folder, mesh = oracles / "qwen2-tied", mesh_of(1, 1, 1)
    config = read_model_config(folder)
    return config, mesh, load_params(folder, config, mesh, jnp.float32), expected(folder)[0]


def rollout_of(config, mesh, sampling, stop_ids=NEVER, **options):
    return Rollout(config, mesh, sampling, stop_ids=stop_ids, pad_id=0, compute_dtype=jnp.float32, **options)


def whole_row_logits(params, config, mesh, rows):
    """Logits [row, token, vocab] of ragged rows, padded on the right, by the decoder as training uses it."""
    width = max(len(row) for row in rows)
    tokens = jnp.asarray([[*row, *[0] * (width - len(row))] for row in rows], jnp.int32)
    valid = jnp.asarray([[place < len(row) for place in range(width)] for row in rows])
    positions = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[None], tokens.shape)

    @jax.jit
    def logits(params):
        attend = causal_attention(valid)
        hidden = hidden_states(params, config, tokens, positions, attend, mesh=mesh, compute_dtype=jnp.float32)
        return jnp.einsum("bte,ve->btv", hidden, head(params))

    return np.asarray(logits(params))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 2)])
def test_greedy_tokens_are_those_of_transformers(oracle, mesh_of, sampling_of, shape):
    """Ragged prompts continued greedily give transformers' 24 tokens exactly, on one device and on a mesh."""
    config, mesh = read_model_config(oracle), mesh_of(*shape)
    prompts, greedy = expected(oracle)
    done = rollout_of(config, mesh, sampling_of(24)).generate(
        load_params(oracle, config, mesh, jnp.float32), prompts, range(4), 0, 0, 40, samples=1, greedy=True
    )
    np.testing.assert_array_equal(done.tokens, greedy)


def test_decode_logits_are_those_of_the_whole_row(oracle, mesh_of):
    """At every position of ragged prompts' completions, decoding by cache gives the whole row's logits."""
    config, mesh = read_model_config(oracle), mesh_of(1, 1, 1)
    params = load_params(oracle, config, mesh, jnp.float32)
    prompts, rows, length = expected(oracle)[0], 3, 10
    completions = np.random.default_rng(0).integers(3, config.vocab, (len(prompts), rows, length), np.int32)
    padded = jnp.asarray([[0] * (48 - len(prompt)) + prompt for prompt in prompts], jnp.int32)
    lengths = jnp.asarray([len(prompt) for prompt in prompts], jnp.int32)
    last, prompt_cache = jax.jit(lambda p: prefill(p, config, padded, lengths, mesh=mesh, dtype=jnp.float32))(params)
    suffix = empty_suffix(prompt_cache, rows, length, mesh)
    step = jax.jit(
        lambda token, index, past: decode(params, config, token, lengths, index, prompt_cache, past, mesh=mesh)
    )
    decoded = [np.repeat(np.asarray(last)[:, None], rows, axis=1)]
    for index in range(length):
        hidden, suffix = step(jnp.asarray(completions[:, :, index]), jnp.int32(index), suffix)
        decoded.append(np.asarray(hidden))
    logits = np.stack(decoded, axis=2) @ np.asarray(head(params)).T
    wholes = [[*prompt, *row] for prompt, block in zip(prompts, completions, strict=True) for row in block.tolist()]
    whole = whole_row_logits(params, config, mesh, wholes)
    for place, got in enumerate(logits.reshape(-1, length + 1, config.vocab)):
        start = len(wholes[place]) - length - 1
        np.testing.assert_allclose(got, whole[place, start : start + length + 1], atol=1e-4, rtol=0)


def test_long_completions_cross_stages_unharmed(tied, sampling_of):
    """Where the suffix grows from one stage to the next, each token is still the whole row's best."""
    config, mesh, params, prompts = tied
    done = rollout_of(config, mesh, sampling_of(300)).generate(
        params, prompts[1:2], [0], 0, 0, 32, samples=1, greedy=True
    )
    row = [*prompts[1], *done.tokens[0].tolist()]
    best = whole_row_logits(params, config, mesh, [row])[0].argmax(-1)
    np.testing.assert_array_equal(done.tokens[0], best[len(prompts[1]) - 1 : -1])


def test_samples_have_the_distribution_of_the_tempered_softmax(tied, sampling_of):
    """2000 first tokens of one prompt follow softmax(logits / temperature), by a chi-square test."""
    config, mesh, params, prompts = tied
    temperature, draws = 2.5, 2000
    done = rollout_of(config, mesh, sampling_of(1, temperature)).generate(
        params, prompts[:1], [0], 0, 0, 32, samples=draws
    )
    logits = whole_row_logits(params, config, mesh, prompts[:1])[0, -1]
    want = np.asarray(jax.nn.softmax(jnp.asarray(logits) / temperature)) * draws
    seen = np.bincount(done.tokens[:, 0], minlength=config.vocab)
    often = want >= 5
    want, seen = np.append(want[often], want[~often].sum()), np.append(seen[often], seen[~often].sum())
    degrees = len(want) - 1
    assert degrees > 20
    assert ((seen - want) ** 2 / want).sum() < degrees + 4 * np.sqrt(2 * degrees)


def test_every_row_has_its_own_samples(tied, sampling_of):
    """Seed, step, prompt number, sample number and token each give other samples; the same ones give the same."""
    config, mesh, params, prompts = tied
    rollout = rollout_of(config, mesh, sampling_of(12, 5.0))

    def tokens(step=0, seed=0, ids=(0, 1)):
        same = [prompts[0], prompts[0]]
        return rollout.generate(params, same, ids, step, seed, 32, samples=4).tokens

    base = tokens()
    rows = [tuple(row) for other in (base, tokens(step=1), tokens(seed=1), tokens(ids=(2, 3))) for row in other]
    assert len(set(rows)) == 32
    assert all(len(set(row)) > 6 for row in rows)
    np.testing.assert_array_equal(tokens(), base)
    np.testing.assert_array_equal(tokens(ids=(1, 0)), np.roll(base, 4, axis=0))


def test_a_row_ends_at_any_stop_id_and_nothing_follows(tied, sampling_of):
    """A row ends with the first stop token, which counts; behind it is padding, and its start is unchanged."""
    config, mesh, params, prompts = tied
    free = rollout_of(config, mesh, sampling_of(24, 3.0)).generate(params, prompts, range(4), 0, 0, 48, samples=8)
    stops = [int(free.tokens[0, 5]), int(free.tokens[9, 11])]
    done = rollout_of(config, mesh, sampling_of(24, 3.0), stops).generate(
        params, prompts, range(4), 0, 0, 48, samples=8
    )
    for row, length, finished, whole in zip(done.tokens, done.lengths, done.finished, free.tokens, strict=True):
        ends = np.flatnonzero(np.isin(whole, stops))
        assert finished == (len(ends) > 0)
        assert length == (ends[0] + 1 if finished else 24)
        np.testing.assert_array_equal(row, np.where(np.arange(24) < length, whole, 0))
    assert 2 <= done.finished.sum() < 32


def test_the_first_token_may_end_a_row(tied, sampling_of):
    """A stop token sampled straight after the prompt gives a completion of length one, and computes no second token."""
    config, mesh, params, prompts = tied
    first = rollout_of(config, mesh, sampling_of(24)).generate(
        params, prompts, range(4), 0, 0, 48, samples=1, greedy=True
    )
    stops = tuple(first.tokens[:, 0].tolist())
    done = rollout_of(config, mesh, sampling_of(24), stops).generate(
        params, prompts, range(4), 0, 0, 48, samples=1, greedy=True
    )
    assert done.lengths.tolist() == [1, 1, 1, 1]
    assert done.finished.all()
    assert done.steps == 1


def test_generation_ends_with_the_last_row(tied, sampling_of):
    """No token is computed after the longest completion; rows that only fill shards do not keep it going."""
    config, mesh, params, prompts = tied
    free = rollout_of(config, mesh, sampling_of(40)).generate(
        params, prompts[:1], [0], 0, 0, 48, samples=1, greedy=True
    )
    stop = free.tokens[0, 9].item()
    done = rollout_of(config, mesh, sampling_of(40), [stop]).generate(
        params, prompts[:1], [0], 0, 0, 48, samples=1, greedy=True, prompts_per_process=5
    )
    assert done.tokens.shape == (1, 40)
    assert done.steps == done.lengths[0] == free.tokens[0].tolist().index(stop) + 1


def test_prompts_must_fit_their_bucket(tied, sampling_of):
    """An empty prompt, or one longer than the bucket, is refused with its place and both lengths."""
    config, mesh, params, prompts = tied
    rollout = rollout_of(config, mesh, sampling_of(4))
    with pytest.raises(ValueError, match="prompt 3 has 40 tokens; it must have 1 to 36"):
        rollout.generate(params, prompts, range(4), 0, 0, 36, samples=1)
    with pytest.raises(ValueError, match="prompt 0 has 0 tokens"):
        rollout.generate(params, [[]], [0], 0, 0, 32, samples=1)


def test_repeated_shapes_compile_nothing(tied, sampling_of, compilations):
    """Other prompts, seeds and steps of the same shapes reuse both programs; another bucket makes exactly two more."""
    config, mesh, params, prompts = tied
    rollout = rollout_of(config, mesh, sampling_of(7))
    rollout.generate(params, prompts[:2], [0, 1], 0, 0, 32, samples=2)
    first = len(compilations)
    assert first == 2
    rollout.generate(params, [prompts[1], prompts[0]], [4, 9], 3, 17, 32, samples=2)
    assert len(compilations) == first
    rollout.generate(params, prompts[:2], [0, 1], 0, 0, 48, samples=2)
    assert len(compilations) == first + 2


def test_a_pass_that_is_asked_to_stop_ends_within_a_chunk(tied, sampling_of):
    """Generation looks once every 32 tokens, and leaves the pass at the first look that finds the wish."""
    config, mesh, params, prompts = tied
    looks = iter([False, False, True])
    rollout = rollout_of(config, mesh, sampling_of(120), asked=lambda: next(looks))
    with pytest.raises(Stopped):
        rollout.generate(params, prompts[:2], [0, 1], 0, 0, 32, samples=2)
    assert list(looks) == []


def test_bfloat16_decodes_what_float32_does(tied, sampling_of):
    """In bfloat16 the decoder's hidden states stay within bfloat16's rounding of the whole row's."""
    config, mesh, params, prompts = tied
    lengths = jnp.asarray([len(prompts[1])], jnp.int32)
    low = jax.tree.map(lambda weight: weight.astype(jnp.bfloat16), params)
    tokens = jnp.asarray([prompts[1]], jnp.int32)
    last, cache = prefill(low, config, tokens, lengths, mesh=mesh, dtype=jnp.bfloat16)
    hidden, suffix = decode(
        low,
        config,
        jnp.asarray([[7]], jnp.int32),
        lengths,
        jnp.int32(0),
        cache,
        empty_suffix(cache, 1, 4, mesh),
        mesh=mesh,
    )
    assert isinstance(suffix, KeysValues)
    assert {hidden.dtype, last.dtype, suffix.keys.dtype} == {jnp.dtype(jnp.bfloat16)}
    row = jnp.asarray([[*prompts[1], 7]], jnp.int32)
    whole = states_of(params, config, mesh, row)
    want, got = np.asarray(whole)[0, -1], np.asarray(hidden.astype(jnp.float32))[0, 0]
    assert np.abs(got - want).max() < 0.03 * np.abs(want).max()
