"""Truncated sampling: what is drawn, against NumPy, and that nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from truncating import truncated_softmax
from whole_rows import states_of

from trainer.arrays.logprobs import token_logprobs
from trainer.arrays.truncation import Truncation
from trainer.model.config import read_model_config
from trainer.model.decoder import causal_attention, head, hidden_states
from trainer.model.weights import load_params
from trainer.rollout import Rollout

PROMPT = [5, 6, 7, 8, 9]
SETTINGS = [
    {"top_k": 30},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"top_k": 60, "top_p": 0.8, "min_p": 0.05},
]


@pytest.fixture(scope="module")
def model(oracles, mesh_of):
    """qwen2-untied on one device: config, mesh, weights."""
    folder, mesh = oracles / "qwen2-untied", mesh_of(1, 1, 1)
    config = read_model_config(folder)
    return config, mesh, load_params(folder, config, mesh, jnp.float32)


def rollout_of(model, sampling):
    config, mesh, _ = model
    return Rollout(config, mesh, sampling, stop_ids=(), pad_id=0, compute_dtype=jnp.float32)


def logits_of(model, tokens):
    """Logits [token, vocab] of one row, by the decoder as training uses it."""
    config, mesh, params = model
    row = jnp.asarray([tokens], jnp.int32)
    positions = jnp.arange(len(tokens), dtype=jnp.int32)[None]
    hidden = jax.jit(
        lambda p: hidden_states(
            p, config, row, positions, causal_attention(jnp.ones(row.shape, bool)), mesh=mesh, compute_dtype=jnp.float32
        )
    )(params)
    return np.asarray(hidden)[0] @ np.asarray(head(params)).T


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_samples_have_the_distribution_that_truncation_leaves(model, sampling_of, settings):
    """4000 first tokens follow NumPy's truncated and renormalised softmax, by chi-square; none lies outside it."""
    temperature, draws = 0.5, 4000
    done = rollout_of(model, sampling_of(1, temperature, **settings)).generate(
        model[2], [PROMPT], [0], 0, 0, 32, samples=draws
    )
    whole = {"top_k": 0, "top_p": 1.0, "min_p": 0.0} | settings
    want = truncated_softmax(logits_of(model, PROMPT)[-1], temperature, **whole) * draws
    seen = np.bincount(done.tokens[:, 0], minlength=len(want))
    assert 10 < np.count_nonzero(want) < len(want) / 2
    assert seen[want == 0].sum() == 0
    often = want >= 5
    want, seen = np.append(want[often], want[~often].sum()), np.append(seen[often], seen[~often].sum())
    want, seen = want[want > 0], seen[want > 0]
    degrees = len(want) - 1
    assert degrees >= 8
    assert ((seen - want) ** 2 / want).sum() < degrees + 4 * np.sqrt(2 * degrees)


@pytest.mark.parametrize("shape", [(1, 1, 4), (2, 2, 2), (1, 8, 1)])
def test_truncated_samples_do_not_depend_on_the_mesh(oracles, mesh_of, sampling_of, model, shape):
    """With the vocabulary over tp, and rows over dp and fsdp, every token is that of one device."""
    config, _, params = model
    sampling, mesh = sampling_of(16, 2.0, top_k=50, top_p=0.9, min_p=0.01), mesh_of(*shape)
    prompts, ids = [PROMPT, PROMPT[:2], PROMPT[1:]], range(3)
    one = rollout_of(model, sampling).generate(params, prompts, ids, 3, 5, 32, samples=8)
    many = Rollout(config, mesh, sampling, stop_ids=(), pad_id=0, compute_dtype=jnp.float32).generate(
        load_params(oracles / "qwen2-untied", config, mesh, jnp.float32), prompts, ids, 3, 5, 32, samples=8
    )
    np.testing.assert_array_equal(one.tokens, many.tokens)
    assert len({tuple(row) for row in one.tokens}) == 24


def test_truncation_leaves_greedy_alone_and_one_token_is_greedy(model, sampling_of):
    """Evaluation's tokens are the same under any truncation, and top_k 1 samples just these."""
    params, call = model[2], ([PROMPT], [0], 0, 0, 32)
    plain = rollout_of(model, sampling_of(12)).generate(params, *call, samples=1, greedy=True)
    cut = rollout_of(model, sampling_of(12, top_k=3, top_p=0.1, min_p=0.5))
    np.testing.assert_array_equal(plain.tokens, cut.generate(params, *call, samples=1, greedy=True).tokens)
    top = rollout_of(model, sampling_of(12, 5.0, top_k=1)).generate(params, *call, samples=2)
    np.testing.assert_array_equal(top.tokens, np.repeat(plain.tokens, 2, axis=0))


def test_truncated_sampling_compiles_once(model, sampling_of, compilations):
    """Other prompts, steps and seeds of the same shapes reuse the program."""
    rollout = rollout_of(model, sampling_of(6, top_k=7, top_p=0.8, min_p=0.01))
    rollout.generate(model[2], [PROMPT], [0], 0, 0, 32, samples=2)
    first = len(compilations)
    for step in range(1, 4):
        rollout.generate(model[2], [PROMPT[:step]], [step], step, 9, 32, samples=2)
    assert len(compilations) == first


@pytest.mark.parametrize("settings", [{}, {"top_k": 40, "top_p": 0.9, "min_p": 0.02}], ids=str)
def test_logprobs_are_those_of_what_was_sampled(model, sampling_of, settings):
    """At every token of every row: the logarithm of NumPy's truncated chance, and that of the whole softmax."""
    temperature, size = 1.5, 9
    done = rollout_of(model, sampling_of(size, temperature, **settings)).generate(
        model[2], [PROMPT], [0], 0, 3, 32, samples=4
    )
    none = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    for tokens, sampled, full in zip(done.tokens.tolist(), done.sampled_logprobs, done.full_logprobs, strict=True):
        logits = logits_of(model, PROMPT + tokens)[len(PROMPT) - 1 : -1]
        for place, token in enumerate(tokens):
            truncated = truncated_softmax(logits[place], temperature, **none | settings)[token]
            whole = truncated_softmax(logits[place], temperature, **none)[token]
            np.testing.assert_allclose([sampled[place], full[place]], np.log([truncated, whole]), atol=1e-4)
    assert (done.sampled_logprobs > done.full_logprobs + 0.1).all() == bool(settings)


def test_the_trainer_scores_the_distribution_that_was_sampled(model, sampling_of):
    """Under truncation, the log-probabilities of the update's arithmetic are those that rollout reports."""
    settings = {"top_k": 40, "top_p": 0.9, "min_p": 0.02}
    config, mesh, params = model
    done = rollout_of(model, sampling_of(9, 1.5, **settings)).generate(params, [PROMPT], [0], 0, 3, 32, samples=4)
    rows = jnp.asarray([PROMPT + row for row in done.tokens.tolist()], jnp.int32)
    hidden = states_of(params, config, mesh, rows)
    start = len(PROMPT)
    scored, _ = token_logprobs(
        hidden[:, start - 1 : -1],
        head(params),
        rows[:, start:],
        temperature=1.5,
        chunk=4,
        truncation=Truncation(**settings),
    )
    np.testing.assert_allclose(scored, done.sampled_logprobs, atol=1e-4)
