"""The decoder against transformers' own numbers, on one device and on meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainer.model.config import read_model_config
from trainer.model.decoder import head, hidden_states
from trainer.model.weights import load_params

MESHES = [(1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 2)]


def expected(folder):
    with np.load(folder / "expected.npz") as numbers:
        return dict(numbers)


def logits_of(folder, mesh, tokens, mask, positions=None):
    config = read_model_config(folder)
    params = load_params(folder, config, mesh, jnp.float32)
    positions = np.cumsum(mask, axis=1, dtype=np.int32) - 1 if positions is None else positions

    @jax.jit
    def forward(params):
        hidden = hidden_states(
            params,
            config,
            jnp.asarray(tokens),
            jnp.asarray(positions),
            jnp.asarray(mask),
            mesh=mesh,
            compute_dtype=jnp.float32,
        )
        return jnp.einsum("bte,ve->btv", hidden, head(params))

    return np.asarray(forward(params))


def test_logits_logprobs_and_entropy_match_transformers(oracle, mesh_of):
    """Logits, next-token log-probabilities and entropy of every real token equal transformers' within 1e-4."""
    want = expected(oracle)
    mask = want["attention_mask"].astype(bool)
    logits = logits_of(oracle, mesh_of(1, 1, 1), want["input_ids"].astype(np.int32), mask)
    logps = np.asarray(jax.nn.log_softmax(jnp.asarray(logits), axis=-1))
    chosen = np.take_along_axis(logps[:, :-1], want["input_ids"][:, 1:, None].astype(np.int64), axis=-1)[..., 0]
    entropy = -(np.exp(logps) * logps).sum(-1)
    np.testing.assert_allclose(logits[mask], want["logits"][mask], atol=1e-4, rtol=0)
    np.testing.assert_allclose(chosen[mask[:, 1:]], want["next_token_logps"][mask[:, 1:]], atol=1e-4, rtol=0)
    np.testing.assert_allclose(entropy[mask], want["entropy"][mask], atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", MESHES[1:])
def test_logits_do_not_depend_on_the_mesh(oracle, mesh_of, shape):
    """Spread over dp, fsdp and tp, the same logits come out."""
    want = expected(oracle)
    rows = [0, 1, 2, 3] * 2
    mask = want["attention_mask"].astype(bool)[rows]
    logits = logits_of(oracle, mesh_of(*shape), want["input_ids"].astype(np.int32)[rows], mask)
    np.testing.assert_allclose(logits[mask], want["logits"][rows][mask], atol=1e-4, rtol=0)


def test_left_padding_changes_nothing(oracle, mesh_of):
    """Rows padded on the left give the logits of rows padded on the right."""
    want = expected(oracle)
    mask = want["attention_mask"].astype(bool)
    shift = (~mask).sum(1)
    left = lambda rows: np.stack([np.roll(row, by, axis=0) for row, by in zip(rows, shift, strict=True)])  # noqa: E731
    positions = left(np.cumsum(mask, axis=1, dtype=np.int32) - 1)
    logits = logits_of(oracle, mesh_of(1, 1, 1), left(want["input_ids"].astype(np.int32)), left(mask), positions)
    np.testing.assert_allclose(logits[left(mask)], want["logits"][mask], atol=1e-4, rtol=0)
