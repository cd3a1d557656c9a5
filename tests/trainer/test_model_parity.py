"""The decoder against transformers' own numbers, on one device and on meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_step import model_of

from trainer.model.config import read_model_config
from trainer.model.decoder import causal_attention, embed, head, hidden_states
from trainer.model.weights import load_params, random_params

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
            causal_attention(jnp.asarray(mask)),
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


def test_the_embedding_gradient_is_summed_in_float32(oracles, mesh_of):
    """In bfloat16 a token that occurs 4096 times gets 4096 times the gradient of one, not 256 times."""
    folder, mesh = oracles / "qwen2-tied", mesh_of(2, 2, 2)
    params = load_params(folder, read_model_config(folder), mesh, jnp.float32)
    tokens = jnp.where(jnp.arange(8192, dtype=jnp.int32) % 2 == 0, 5, 6).reshape(8, 1024)

    def total(params):
        return embed(params, tokens, mesh, jnp.bfloat16).astype(jnp.float32).sum()

    gradient = np.asarray(jax.jit(jax.grad(total))(params)["embed"])
    np.testing.assert_array_equal(gradient[5:7], np.full((2, 64), 4096.0))
    assert np.count_nonzero(gradient) == 2 * 64


def test_what_is_kept_for_the_backward_pass_costs_memory_and_changes_nothing(mesh_of):
    """Every policy gives the same gradients; the less it keeps, the less memory its program takes."""
    config, mesh = model_of(layers=8), mesh_of(1, 1, 1)
    params = random_params(config, 0, mesh, jnp.float32)
    tokens = jnp.arange(512, dtype=jnp.int32).reshape(8, 64) % config.vocab
    places = jnp.broadcast_to(jnp.arange(64, dtype=jnp.int32)[None], (8, 64))
    attend = causal_attention(jnp.ones((8, 64), bool))

    def program(remat):
        def loss(params):
            settings = {"mesh": mesh, "compute_dtype": jnp.float32, "remat": remat}
            return jnp.sin(hidden_states(params, config, tokens, places, attend, **settings)).mean()

        return jax.jit(jax.grad(loss)).lower(params).compile()

    programs = [program(remat) for remat in ("layer", "products", "none")]
    sizes = [compiled.memory_analysis().temp_size_in_bytes for compiled in programs]
    assert sizes[0] * 1.5 < sizes[1] < sizes[2] / 1.5
    for again, *kept in zip(*(jax.tree.leaves(compiled(params)) for compiled in programs), strict=True):
        for leaf in kept:
            np.testing.assert_allclose(leaf, again, rtol=0, atol=1e-5 * float(jnp.abs(again).max()))


def test_gradients_do_not_depend_on_mesh_or_remat(oracles, mesh_of):
    """Recomputing layers in the backward pass, and spreading weights and rows, change no gradient."""
    folder = oracles / "qwen2-tied"
    want = expected(folder)
    config, rows = read_model_config(folder), [0, 1, 2, 3] * 2
    tokens, mask = want["input_ids"].astype(np.int32)[rows], want["attention_mask"].astype(bool)[rows]
    positions = np.cumsum(mask, axis=1, dtype=np.int32) - 1

    def gradient(mesh, remat):
        def loss(params):
            hidden = hidden_states(
                params,
                config,
                jnp.asarray(tokens),
                jnp.asarray(positions),
                causal_attention(jnp.asarray(mask)),
                mesh=mesh,
                compute_dtype=jnp.float32,
                remat=remat,
            )
            return jnp.where(mask[..., None], jnp.sin(hidden @ head(params).T), 0.0).mean()

        return jax.jit(jax.grad(loss))(load_params(folder, config, mesh, jnp.float32))

    plain = gradient(mesh_of(1, 1, 1), "none")
    assert all(np.abs(np.asarray(leaf)).max() > 1e-6 for leaf in jax.tree.leaves(plain))
    for name, spread in jax.tree.leaves_with_path(gradient(mesh_of(2, 2, 2), "layer")):
        one = np.asarray(dict(jax.tree.leaves_with_path(plain))[name])
        np.testing.assert_allclose(np.asarray(spread), one, rtol=0, atol=2e-5 * np.abs(one).max(), err_msg=str(name))
