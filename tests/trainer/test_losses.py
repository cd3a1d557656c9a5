"""Losses and their aggregation, against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trainer.grpo.losses import (
    aggregate,
    cispo_loss,
    clipped_policy_loss,
    divergence,
    importance_weighted,
    log_ratio,
    sequence_log_ratio,
    truncated_importance,
)


def loss_and_slope(ratio: float, advantage: float, delta: float | None = None) -> tuple[float, float, bool]:
    """Loss, its derivative by the log ratio, and whether the clip took over, at one token."""

    def loss(log: jax.Array) -> tuple[jax.Array, jax.Array]:
        losses, clipped = clipped_policy_loss(
            log[None, None], jnp.array([advantage]), epsilon_low=0.2, epsilon_high=0.3, delta=delta
        )
        return losses[0, 0], clipped[0, 0]

    (value, clipped), slope = jax.value_and_grad(loss, has_aux=True)(jnp.log(ratio))
    return float(value), float(slope), bool(clipped)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, False),
        (1.25, 2.0, -2.5, -2.5, False),
        (1.5, 2.0, -2.6, 0.0, True),
        (0.5, 2.0, -1.0, -1.0, False),
        (0.5, -2.0, 1.6, 0.0, True),
        (1.5, -2.0, 3.0, 3.0, False),
        (1.5, 0.0, 0.0, 0.0, False),
    ],
)
def test_the_clip_stops_only_what_leads_further_away(
    ratio: float, advantage: float, value: float, slope: float, clipped: bool
) -> None:
    """Above 1 + ε_high with a positive advantage, and below 1 - ε_low with a negative one, the gradient is 0."""
    assert loss_and_slope(ratio, advantage) == (pytest.approx(value), pytest.approx(slope), clipped)


def test_delta_bounds_the_ratio_of_a_bad_token() -> None:
    """With δ = 2, a token of negative advantage at ratio 3 costs 2 · |A| and gives no gradient."""
    assert loss_and_slope(3.0, -1.0, delta=2.0) == (pytest.approx(2.0), 0.0, True)
    assert loss_and_slope(1.5, -1.0, delta=2.0) == (pytest.approx(1.5), pytest.approx(1.5), False)


def test_without_old_log_probabilities_the_gradient_is_the_policy_gradient() -> None:
    """At ratio 1 the derivative by each log-probability is minus the advantage."""
    logprobs = jnp.array([[-1.0, -2.0], [-3.0, -0.5]])

    def loss(logprobs: jax.Array) -> jax.Array:
        ratio = log_ratio(logprobs, jax.lax.stop_gradient(logprobs), jnp.ones((2, 2), bool))
        return clipped_policy_loss(ratio, jnp.array([1.5, -0.5]), epsilon_low=0.2, epsilon_high=0.2)[0].sum()

    np.testing.assert_allclose(jax.grad(loss)(logprobs), [[-1.5, -1.5], [0.5, 0.5]])


def test_what_lies_outside_the_mask_cannot_overflow() -> None:
    """A log ratio of 1000 at padding gives the value and the gradient of 0, not infinity times zero."""

    def penalty(logprobs: jax.Array) -> jax.Array:
        mask = jnp.array([[True, False]])
        ratio = log_ratio(logprobs, jnp.zeros((1, 2)), mask)
        return jnp.where(mask, divergence(ratio, "k3"), 0.0).sum()

    value, gradient = jax.value_and_grad(penalty)(jnp.array([[0.0, 1000.0]]))
    assert (float(value), gradient.tolist()) == (0.0, [[0.0, 0.0]])


def test_the_ratio_of_a_sequence_is_the_mean_of_its_tokens() -> None:
    """Log ratios 1 and 3 in the mask give 2 at every token; a row without tokens gives 0."""
    mask = jnp.array([[True, True, False], [False, False, False]])
    ratio = log_ratio(jnp.array([[1.0, 3.0, 8.0], [5.0, 5.0, 5.0]]), jnp.zeros((2, 3)), mask)
    assert sequence_log_ratio(ratio, mask).tolist() == [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0]]


def test_the_weight_of_a_token_is_cut_at_the_cap() -> None:
    """Ratios 1/2, 3/2 and 5 under a cap of 2 weigh 1/2, 3/2 and 2, without gradient; one that overflows weighs 2."""
    gap = jnp.log(jnp.array([[0.5, 1.5, 5.0]]))
    weights, cut = truncated_importance(gap, 2.0)
    np.testing.assert_allclose(weights, [[0.5, 1.5, 2.0]], rtol=1e-6)
    assert cut.tolist() == [[False, False, True]]
    assert not jax.grad(lambda gap: truncated_importance(gap, 2.0)[0].sum())(gap).any()
    np.testing.assert_allclose(truncated_importance(jnp.array([[200.0]]), 2.0)[0], [[2.0]], rtol=1e-6)


@pytest.mark.parametrize(("ratio", "slope", "bounded"), [(4.0, -6.0, True), (2.0, -4.0, False)])
def test_cispo_weighs_the_log_probability_by_the_bounded_ratio(ratio: float, slope: float, bounded: bool) -> None:
    """At A = 2 and log π = -1, a ratio of 4 is bounded to 3 and one of 2 is not; neither has a gradient of its own."""

    def loss(logprobs: jax.Array) -> tuple[jax.Array, jax.Array]:
        log = log_ratio(logprobs, jnp.array([[-1.0]]) - jnp.log(ratio), jnp.ones((1, 1), bool))
        losses, over = cispo_loss(logprobs, log, jnp.array([2.0]), ratio_max=3.0)
        return losses[0, 0], over[0, 0]

    (value, over), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.array([[-1.0]]))
    assert (float(value), float(gradient[0, 0])) == (pytest.approx(-slope), pytest.approx(slope))
    assert bool(over) == bounded


@pytest.mark.parametrize("estimate", ["k1", "k2", "k3"])
def test_on_policy_the_weighted_estimate_has_the_gradient_of_the_divergence(estimate: str) -> None:
    """Σ p · r · k over a whole vocabulary of three, r = 1, against finite differences of Σ p log(p / q).

    k2 has the gradient of its own expectation, which is another divergence.
    """
    logits, other = jnp.array([0.3, -0.2, 0.5]), jax.nn.log_softmax(jnp.array([0.1, 0.4, -0.3]))
    drawn = jax.nn.log_softmax(logits)

    def estimated(logits: jax.Array) -> jax.Array:
        logprobs = jax.nn.log_softmax(logits)
        penalty = divergence(other - logprobs, estimate)
        return (jnp.exp(drawn) * importance_weighted(penalty, logprobs - drawn)).sum()

    def exact(logits: np.ndarray) -> float:
        log = logits - np.log(np.exp(logits).sum())
        ratio = np.asarray(other, np.float64) - log
        return float((np.exp(log) * (ratio**2 / 2 if estimate == "k2" else -ratio)).sum())

    base, step = np.asarray(logits, np.float64), 1e-6
    slopes = [(exact(base + step * unit) - exact(base - step * unit)) / (2 * step) for unit in np.eye(3)]
    np.testing.assert_allclose(jax.grad(estimated)(logits), slopes, rtol=1e-4, atol=1e-6)


def test_the_three_estimates_of_a_divergence() -> None:
    """At q / p = 2: k1 = -ln 2, k2 = (ln 2)² / 2, k3 = 1 - ln 2."""
    ratio, log2 = jnp.log(jnp.array([[2.0]])), float(np.log(2))
    expected = {"k1": -log2, "k2": log2**2 / 2, "k3": 1 - log2}
    for estimate, value in expected.items():
        np.testing.assert_allclose(divergence(ratio, estimate), [[value]], rtol=1e-6)


@pytest.mark.parametrize(
    ("aggregation", "numerator", "denominator"),
    [
        ("token-mean", 1 + 2 + 6, 3),
        ("sequence-mean-token-mean", 1.5 + 6, 2),
        ("sequence-mean-token-sum", 1 + 2 + 6, 2),
        ("sequence-mean-token-sum-norm", 1 + 2 + 6, 2 * 10),
    ],
)
def test_each_aggregation_is_a_quotient_of_two_sums(aggregation: str, numerator: float, denominator: float) -> None:
    """Rows of 2, 1 and 0 tokens with losses 1, 2 | 6 | nothing; what is outside the mask, even NaN, does not count.

    Neither does a row without tokens: an unscorable completion, one that was cut off, a group that fills up.
    """
    loss = jnp.array([[1.0, 2.0], [6.0, jnp.nan], [jnp.nan, jnp.nan]])
    mask = jnp.array([[True, True], [True, False], [False, False]])
    result = aggregate(loss, mask, aggregation, longest=10)
    assert [float(part) for part in result] == [numerator, denominator]
