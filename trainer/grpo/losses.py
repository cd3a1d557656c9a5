"""Policy losses per token, their penalties, and how they become one number.

In: log-probabilities [row, token] float32, advantages [row], masks. Out: a loss per token, and sums that add up over
micro-steps and processes. It refuses to know the model, and which of these a preset picks.
"""

from typing import Literal

import jax
import jax.numpy as jnp

Aggregation = Literal[
    "token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum", "sequence-mean-token-sum-norm"
]
Estimate = Literal["k1", "k2", "k3"]


def log_ratio(logprobs: jax.Array, reference: jax.Array, mask: jax.Array) -> jax.Array:
    """log(π / π_reference) [row, token], and 0 outside `mask`, where neither means anything and exp could overflow."""
    return jnp.where(mask, logprobs - reference, 0.0)


def sequence_log_ratio(ratio: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean log ratio of a row at each of its tokens: GSPO, https://arxiv.org/abs/2507.18071 eq. 7."""
    mean = ratio.sum(axis=-1, keepdims=True) / jnp.maximum(_length(mask), 1.0)[:, None]
    return jnp.broadcast_to(mean, ratio.shape)


def clipped_policy_loss(
    ratio: jax.Array,
    advantages: jax.Array,
    *,
    epsilon_low: float,
    epsilon_high: float,
    delta: float | None = None,
) -> tuple[jax.Array, jax.Array]:
    """-min(r · A, clip(r, 1 - ε_low, 1 + ε_high) · A), r = exp(`ratio`), per token, and where the clip took over.

    `ratio` is a log ratio [row, token], `advantages` [row]. Source: PPO, https://arxiv.org/abs/1707.06347 eq. 7, with
    two bounds as in DAPO, https://arxiv.org/abs/2503.14476 eq. 10. `delta` > 1 + ε_high also bounds r from above in
    the first product, which is to say where A < 0: dual clip, https://arxiv.org/abs/1912.09729 eq. 5. The second
    result is bool [row, token]: where the clip took the gradient away.
    """
    advantage = advantages[:, None]
    policy = jnp.exp(ratio)
    clipped = jnp.clip(policy, 1.0 - epsilon_low, 1.0 + epsilon_high)
    bounded = policy if delta is None else jnp.minimum(policy, delta)
    below = (policy < 1.0 - epsilon_low) & (advantage < 0.0)
    above = (policy > 1.0 + epsilon_high) & (advantage > 0.0)
    over = jnp.zeros_like(above) if delta is None else (policy > delta) & (advantage < 0.0)
    return -jnp.minimum(bounded * advantage, clipped * advantage), below | above | over


def cispo_loss(
    logprobs: jax.Array, ratio: jax.Array, advantages: jax.Array, *, ratio_max: float
) -> tuple[jax.Array, jax.Array]:
    """-min(r, `ratio_max`) · A · log π, no gradient through r: CISPO, https://arxiv.org/abs/2506.13585 eq. 4.

    The second result is bool [row, token]: where the bound took over. The gradient stays there, at the bounded weight.
    """
    weight = jnp.exp(jax.lax.stop_gradient(ratio))
    return -jnp.minimum(weight, ratio_max) * advantages[:, None] * logprobs, weight > ratio_max


def truncated_importance(gap: jax.Array, cap: float) -> tuple[jax.Array, jax.Array]:
    """min(w, `cap`) per token, w = exp(`gap`) = π_old / π_rollout, without gradient, and where the cap cut (bool).

    The weight of a loss whose tokens another program sampled than the one that computes the ratio: it makes up for the
    difference of the two, and the cap bounds what one unlikely token can weigh. Truncated importance sampling by token,
    https://fengyao.notion.site/off-policy-rl.
    """
    bound = jnp.log(jnp.float32(cap))
    return jax.lax.stop_gradient(jnp.exp(jnp.minimum(gap, bound))), gap > bound


def importance_weighted(penalty: jax.Array, ratio: jax.Array) -> jax.Array:
    """R · `penalty` per token, r = exp(`ratio`): its expectation over the old policy is that over the new one.

    So the gradient is that of the expectation, through r too: on policy, that of r · k1 is the gradient of the KL,
    while that of k1 alone is 0 in expectation. TRL does the same (`GRPOTrainer._compute_loss`).
    """
    return jnp.exp(ratio) * penalty


def divergence(ratio: jax.Array, estimate: Estimate) -> jax.Array:
    """KL(p ‖ q) from tokens drawn from p, per token, `ratio` = log q - log p: http://joschu.net/blog/kl-approx.html.

    k1 = -log(q/p); k2 = log(q/p)² / 2; k3 = q/p - 1 - log(q/p), never negative.
    """
    if estimate == "k1":
        return -ratio
    return ratio**2 / 2.0 if estimate == "k2" else jnp.expm1(ratio) - ratio


def aggregate(
    loss: jax.Array, mask: jax.Array, aggregation: Aggregation, *, longest: int
) -> tuple[jax.Array, jax.Array]:
    """Numerator and denominator, two float32 scalars, of one loss from `loss` [row, token] where `mask` is true.

    Both add up over micro-steps and processes, and only the quotient of the two sums is the loss: then no split of a
    batch weighs its tokens otherwise than the whole. A row without a token in the mask is no row of the batch.
    - token-mean: Σ loss / tokens, DAPO;
    - sequence-mean-token-mean: the mean over rows of a row's mean, https://arxiv.org/abs/2402.03300 eq. 3;
    - sequence-mean-token-sum: the mean over rows of a row's sum, https://arxiv.org/abs/2402.14740;
    - sequence-mean-token-sum-norm: that over `longest`, the longest completion allowed, a constant: Dr. GRPO,
      https://arxiv.org/abs/2503.20783.
    """
    sums = jnp.where(mask, loss, 0.0).sum(axis=-1)
    lengths = _length(mask)
    if aggregation == "token-mean":
        return sums.sum(), lengths.sum()
    rows = (lengths > 0).sum(dtype=jnp.float32)
    if aggregation == "sequence-mean-token-mean":
        return (sums / jnp.maximum(lengths, 1.0)).sum(), rows
    return sums.sum(), rows if aggregation == "sequence-mean-token-sum" else rows * longest


def _length(mask: jax.Array) -> jax.Array:
    return mask.sum(axis=-1, dtype=jnp.float32)
