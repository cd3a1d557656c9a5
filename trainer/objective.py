"""The loss of a run's algorithm over some rows, as sums that add up over micro-steps and processes.

In: scores of the tokens, and what they are compared with. Out: `Sums`. It refuses to know the model, and how rows were
laid over devices; the formulas are in `trainer.grpo`, and here is which of them an algorithm composes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from trainer.contract.run import Algorithm
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


class Terms(NamedTuple):
    """What a loss is made of, [row, token] but for `advantages` [row].

    `old` is None where the ratio is to this policy itself, `reference` where there is no KL term, `rollout` where what
    sampled the tokens did not say how likely they were to it.
    """

    logprobs: jax.Array
    entropy: jax.Array
    mask: jax.Array
    advantages: jax.Array
    old: jax.Array | None = None
    reference: jax.Array | None = None
    rollout: jax.Array | None = None


class Sums(NamedTuple):
    """`loss` over `weight` is the loss; the others are measured per token: what the KL to the old policy and to the
    reference is, how many tokens the clip, or CISPO's bound, took over, and how far the rollout's log-probabilities
    are from those that this program gives the same policy: their k3 estimate, `largest_mismatch` of all tokens, and
    how many the importance cap `cut`.
    """

    loss: jax.Array
    weight: jax.Array
    tokens: jax.Array
    entropy: jax.Array
    clipped: jax.Array
    old_divergence: jax.Array
    reference_divergence: jax.Array
    mismatch: jax.Array
    largest_mismatch: jax.Array
    cut: jax.Array

    @classmethod
    def nothing(cls) -> "Sums":
        amount, count = jnp.float32(0.0), jnp.int32(0)
        return cls(amount, amount, count, amount, count, amount, amount, amount, amount, count)

    def plus(self, other: "Sums") -> "Sums":
        added: Sums = jax.tree.map(jnp.add, self, other)
        return added._replace(largest_mismatch=jnp.maximum(self.largest_mismatch, other.largest_mismatch))


def loss_sums(terms: Terms, algorithm: Algorithm, longest: int) -> Sums:
    """`longest` is the longest completion that the run allows, in tokens.

    The KL term is weighed by the importance ratio, as in TRL: tokens came from the old policy, and only so is the
    gradient that of the KL; for k1 it would else be none. With an `importance_cap` the whole loss of a token is weighed
    by how much too unlikely the rollout made it: TRL and verl leave out the KL term, whose tokens it sampled too.
    """
    mask, logprobs = terms.mask, terms.logprobs
    old = jax.lax.stop_gradient(logprobs) if terms.old is None else terms.old
    token_ratio = log_ratio(logprobs, old, mask)
    ratio = sequence_log_ratio(token_ratio, mask) if algorithm.ratio == "sequence" else token_ratio
    losses, clipped = _policy_losses(ratio, terms, algorithm)
    reference_divergence = jnp.float32(0.0)
    if terms.reference is not None:
        distance = divergence(log_ratio(terms.reference, logprobs, mask), algorithm.kl)
        losses += algorithm.beta * importance_weighted(distance, ratio)
        reference_divergence = jnp.where(mask, jax.lax.stop_gradient(distance), 0.0).sum()
    gap = log_ratio(old, old if terms.rollout is None else terms.rollout, mask)
    cut = jnp.zeros_like(mask)
    if algorithm.importance_cap is not None:
        weights, cut = truncated_importance(gap, algorithm.importance_cap)
        losses *= weights
    loss, weight = aggregate(losses, mask, algorithm.aggregation, longest=longest)
    return Sums(
        loss=loss,
        weight=weight,
        tokens=mask.sum(dtype=jnp.int32),
        entropy=jnp.where(mask, terms.entropy, 0.0).sum(),
        clipped=(clipped & mask).sum(dtype=jnp.int32),
        old_divergence=divergence(jax.lax.stop_gradient(token_ratio), "k3").sum(),
        reference_divergence=reference_divergence,
        mismatch=divergence(gap, "k3").sum(),
        largest_mismatch=jnp.abs(gap).max(),
        cut=cut.sum(dtype=jnp.int32),
    )


def _policy_losses(ratio: jax.Array, terms: Terms, algorithm: Algorithm) -> tuple[jax.Array, jax.Array]:
    if algorithm.loss == "cispo":
        return cispo_loss(terms.logprobs, ratio, terms.advantages, ratio_max=1.0 + algorithm.epsilon_high)
    return clipped_policy_loss(
        ratio,
        terms.advantages,
        epsilon_low=algorithm.epsilon_low,
        epsilon_high=algorithm.epsilon_high,
        delta=algorithm.dual_clip,
    )
