"""What no reference program was asked: each objective and its gradient, by finite differences of a second writing.

That writing is in float64 and in loops, and holds still what has no gradient: CISPO's weight, the importance weight.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_step import GRPO

from trainer.objective import Terms, loss_sums

LONGEST = 7
LN2 = float(np.log(2.0))
LENGTHS = (4, 2, 0, 3)
ADVANTAGES = np.array([1.5, -0.7, 0.9, -1.1])
DRAW = np.random.default_rng(8)
NOW, OLD, REFERENCE, ROLLOUT = (np.log(DRAW.uniform(0.1, 0.9, (4, 4))) for _ in range(4))
MASK = np.arange(4) < np.array(LENGTHS)[:, None]


def textbook(now: np.ndarray, choice: dict[str, Any]) -> float:
    rows = []
    for row, length in enumerate(LENGTHS):
        logs = now[row, :length]
        ratio = logs - OLD[row, :length]
        if choice.get("ratio") == "sequence" and length:
            ratio = np.full(length, ratio.mean())
        rows.append([token_loss(row, place, logs[place], np.exp(ratio[place]), choice) for place in range(length)])
    told = [losses for losses in rows if losses]
    means = {
        "token-mean": lambda: np.mean([loss for losses in told for loss in losses]),
        "sequence-mean-token-mean": lambda: np.mean([np.mean(losses) for losses in told]),
        "sequence-mean-token-sum": lambda: np.mean([sum(losses) for losses in told]),
        "sequence-mean-token-sum-norm": lambda: np.mean([sum(losses) / LONGEST for losses in told]),
    }
    return float(means[choice.get("aggregation", "token-mean")]())


def token_loss(row: int, place: int, log: float, ratio: float, choice: dict[str, Any]) -> float:
    advantage, low, high = ADVANTAGES[row], choice.get("epsilon_low", 0.2), choice.get("epsilon_high", 0.2)
    if choice.get("loss") == "cispo":
        loss = -min(np.exp(NOW[row, place] - OLD[row, place]), 1 + high) * advantage * log
    else:
        bounded = min(ratio, choice.get("dual_clip") or np.inf)
        loss = -min(bounded * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
    distance = REFERENCE[row, place] - log
    estimates = {"k1": -distance, "k2": distance**2 / 2, "k3": np.exp(distance) - 1 - distance}
    loss += choice.get("beta", 0.0) * ratio * estimates[choice.get("kl", "k3")]
    cap = choice.get("importance_cap")
    return loss if cap is None else loss * min(np.exp(OLD[row, place] - ROLLOUT[row, place]), cap)


@pytest.mark.parametrize(
    "choice",
    [
        {"ratio": "sequence", "epsilon_low": 0.3, "epsilon_high": 0.4, "aggregation": "sequence-mean-token-mean"},
        {"loss": "cispo", "epsilon_high": 0.5},
        {"loss": "cispo", "epsilon_high": 0.5, "importance_cap": 1.2},
        {"dual_clip": 1.7},
        {"importance_cap": 1.5, "aggregation": "sequence-mean-token-sum"},
        {"beta": 0.3, "kl": "k1"},
        {"beta": 0.3, "kl": "k2", "aggregation": "sequence-mean-token-sum-norm"},
        {"beta": 0.3, "kl": "k3", "importance_cap": 1.5},
        {"beta": 0.3, "kl": "k3", "ratio": "sequence"},
    ],
    ids=str,
)
def test_an_objective_and_its_gradient_are_those_of_its_formula(choice: dict[str, Any]) -> None:
    """Rows of 4, 2, 0 and 3 tokens off policy, some clipped, some not; tokens outside the mask have no gradient."""
    algorithm = GRPO.model_copy(update=choice)

    def loss(now: jax.Array) -> tuple[jax.Array, jax.Array]:
        old, reference, rollout = (jnp.float32(logs) for logs in (OLD, REFERENCE, ROLLOUT))
        compared = reference if algorithm.beta else None
        sums = loss_sums(
            Terms(now, jnp.zeros((4, 4)), jnp.array(MASK), jnp.float32(ADVANTAGES), old, compared, rollout),
            algorithm,
            LONGEST,
        )
        return sums.loss / sums.weight, sums.clipped

    (value, clipped), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.float32(NOW))
    assert float(value) == pytest.approx(textbook(NOW, choice), rel=1e-5)
    slopes, step = np.zeros((4, 4)), 1e-6
    for place in np.ndindex(4, 4):
        moved = np.zeros((4, 4))
        moved[place] = step
        slopes[place] = (textbook(NOW + moved, choice) - textbook(NOW - moved, choice)) / (2 * step)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-6)
    assert not np.asarray(gradient)[~MASK].any()
    assert 0 < int(clipped) < MASK.sum()


def test_the_importance_weight_covers_all_of_a_tokens_loss() -> None:
    """By hand: two tokens at ratio 1 with A = 2, and a reference twice as sure, each cost -2 + 0.1 · (1 - ln 2).

    The rollout gave the first half of its probability, which is a weight of 2 under a cap of 1.5, and the second all
    of it: the mean is 1.25 times that, the KL term included.
    """
    now = jnp.float32([[-1.0, -3.0]])

    def loss(logprobs: jax.Array) -> jax.Array:
        terms = Terms(
            logprobs=logprobs,
            entropy=jnp.zeros((1, 2)),
            mask=jnp.ones((1, 2), bool),
            advantages=jnp.float32([2.0]),
            reference=now + LN2,
            rollout=now - jnp.float32([[LN2, 0.0]]),
        )
        sums = loss_sums(terms, GRPO.model_copy(update={"beta": 0.1, "importance_cap": 1.5}), LONGEST)
        assert sums.weight.dtype == jnp.float32
        return sums.loss / sums.weight

    value, gradient = jax.value_and_grad(loss)(now)
    assert float(value) == pytest.approx(1.25 * (-2 + 0.1 * (1 - LN2)), rel=1e-6)
    # Of r · k3, r = 1: its own slope 1 - q/p, and k3 through r.
    slope = -2 + 0.1 * (1 - 2 + 1 - LN2)
    np.testing.assert_allclose(gradient, [[1.5 * slope / 2, slope / 2]], rtol=1e-5)
