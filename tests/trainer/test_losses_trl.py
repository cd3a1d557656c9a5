"""The objective of a run, against `GRPOTrainer._compute_loss` and its gradients, for every algorithm tried there.

The log-probabilities are those of our own model, and the gradient goes back through it to every weight.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trl_cases import algorithm_of

from trainer.arrays.logprobs import token_logprobs
from trainer.model.config import read_model_config
from trainer.model.decoder import causal_attention, head, hidden_states
from trainer.model.weights import load_params
from trainer.objective import Terms, loss_sums

LOSSES_PER_MODEL = 32


@dataclass(frozen=True)
class Reference:
    """TRL's batch and results for one checkpoint, and our log-probabilities with the way back to its weights."""

    cases: list[dict[str, Any]]
    longest: int
    arrays: dict[str, np.ndarray]
    logprobs: jax.Array
    gradients: Callable[[jax.Array], dict[str, Any]]

    def loss(self, logprobs: jax.Array, case: dict[str, Any]) -> jax.Array:
        arrays = {name: jnp.asarray(array, jnp.float32) for name, array in self.arrays.items()}
        terms = Terms(
            logprobs=logprobs,
            entropy=jnp.zeros_like(logprobs),
            mask=arrays["completion_mask"] > 0,
            advantages=arrays["advantages"],
            old=arrays["old_per_token_logps"] if case["uses_old"] else None,
            reference=arrays["ref_per_token_logps"] if case["beta"] else None,
        )
        sums = loss_sums(terms, algorithm_of(case), self.longest)
        return sums.loss / sums.weight


@pytest.fixture(scope="module", params=["qwen2-tied", "qwen2-untied"])
def reference(request: pytest.FixtureRequest, oracles: Path, mesh_of: Callable[..., Any]) -> Reference:
    folder = oracles / request.param
    description, arrays = json.loads((folder / "losses.json").read_text()), dict(np.load(folder / "losses.npz"))
    config = read_model_config(folder)
    params = load_params(folder, config, mesh_of(1, 1, 1), jnp.float32)
    tokens, valid = (np.concatenate([arrays[f"prompt_{x}"], arrays[f"completion_{x}"]], 1) for x in ("ids", "mask"))
    start = arrays["prompt_ids"].shape[1]

    @jax.jit
    def score(params: dict[str, Any]) -> jax.Array:
        hidden = hidden_states(
            params,
            config,
            jnp.asarray(tokens, jnp.int32),
            jnp.maximum(jnp.cumsum(jnp.asarray(valid, jnp.int32), -1) - 1, 0),
            causal_attention(jnp.asarray(valid, bool)),
            mesh=None,
            compute_dtype=jnp.float32,
        )
        targets = jnp.asarray(tokens[:, start:], jnp.int32)
        return token_logprobs(hidden[:, start - 1 : -1], head(params), targets, temperature=1.0, chunk=8)[0]

    logprobs, back = jax.vjp(score, params)
    return Reference(
        cases=description["cases"],
        longest=description["max_completion_length"],
        arrays=arrays,
        logprobs=logprobs,
        gradients=jax.jit(lambda slope: back(slope)[0]),
    )


def test_log_probabilities_are_those_of_trl(reference: Reference) -> None:
    """On completion tokens of left-padded prompts, to 1e-5."""
    mask = reference.arrays["completion_mask"] > 0
    np.testing.assert_allclose(
        np.asarray(reference.logprobs)[mask], reference.arrays["per_token_logps"][mask], rtol=1e-5
    )


def test_losses_and_gradients_are_those_of_trl(reference: Reference) -> None:
    """Each of the 32 cases of a checkpoint: loss, gradient norm and the gradient of one weight, to 1e-5 relative.

    A loss that TRL finds to be rounding error around 0 (below 1e-7) is compared absolutely.
    """
    met = []
    for case in reference.cases:
        value, slope = jax.value_and_grad(reference.loss)(reference.logprobs, case)
        gradients = reference.gradients(slope)
        expected = reference.arrays[f"grad_q_proj_layer0/{case['key']}"]
        assert float(value) == pytest.approx(case["loss"], rel=1e-5, abs=1e-7), case["key"]
        assert float(optax.tree.norm(gradients)) == pytest.approx(case["grad_norm"], rel=1e-5), case["key"]
        difference = np.linalg.norm(gradients["layers"]["q"][0] - expected) / np.linalg.norm(expected)
        assert difference < 1e-5, (case["key"], difference)
        met.append(case["key"])
    assert len(set(met)) == LOSSES_PER_MODEL
