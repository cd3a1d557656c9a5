"""What the update says about the rollout: how far their log-probabilities are apart, and of which policy they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_step import GRPO, plan_of
from test_update import ADAMW, MODEL

from trainer.arrays.truncation import Truncation
from trainer.mesh import build_mesh
from trainer.model.weights import random_params
from trainer.objective import Sums, Terms, loss_sums
from trainer.policy import make_scorer
from trainer.rollout import Rollout
from trainer.trainbatch import BatchSizes, TrainRow, build_train_batch
from trainer.update import init_state, make_update

PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5]]


def test_mismatch_worked_by_hand() -> None:
    """Ratios of e^0.1 and e^-0.3 give (e^0.1 - 1.1) + (e^-0.3 - 0.7) and 0.3; a masked token does not count."""
    ours = jnp.log(jnp.float32([[0.2, 0.3, 0.4]]))
    theirs = ours - jnp.float32([[0.1, -0.3, 5.0]])
    mask = jnp.array([[True, True, False]])
    sums = loss_sums(Terms(ours, jnp.zeros((1, 3)), mask, jnp.ones(1), rollout=theirs), GRPO, 3)
    assert float(sums.mismatch) == pytest.approx(np.exp(0.1) - 1.1 + np.exp(-0.3) - 0.7, rel=1e-4)
    assert float(sums.largest_mismatch) == pytest.approx(0.3, rel=1e-5)
    both = sums.plus(sums._replace(largest_mismatch=jnp.float32(0.2)))
    assert float(both.mismatch) == pytest.approx(2 * float(sums.mismatch))
    assert float(both.largest_mismatch) == pytest.approx(0.3, rel=1e-5)
    assert float(Sums.nothing().plus(sums).largest_mismatch) == pytest.approx(0.3, rel=1e-5)


def test_truncated_importance_worked_by_hand() -> None:
    """Weights 1/2, 3 cut to 2, and 1: at ratio 1 and advantage 4 these, times -4/3, are the slopes of the mean loss.

    A KL term is weighed too: k1 against a reference half as likely adds β · weight · ln 2 to a token's loss.
    """
    ours = jnp.log(jnp.float32([[0.1, 0.6, 0.4]]))
    theirs = ours - jnp.log(jnp.float32([[0.5, 3.0, 1.0]]))
    shape, advantages = jnp.ones((1, 3)), jnp.float32([4.0])
    capped = GRPO.model_copy(update={"importance_cap": 2.0, "beta": 0.3, "kl": "k1"})

    def loss(logprobs: jax.Array, reference: jax.Array | None) -> tuple[jax.Array, Sums]:
        terms = Terms(logprobs, shape, shape > 0, advantages, reference=reference, rollout=theirs)
        sums = loss_sums(terms, capped, 3)
        return sums.loss / sums.weight, sums

    (value, sums), slope = jax.value_and_grad(loss, has_aux=True)(ours, None)
    assert float(value) == pytest.approx(-4 * (0.5 + 2 + 1) / 3)
    np.testing.assert_allclose(slope, [[-4 * 0.5 / 3, -4 * 2 / 3, -4 / 3]], rtol=1e-6)
    assert int(sums.cut) == 1
    with_kl = float(loss(ours, ours - jnp.log(2.0))[0])
    assert with_kl - float(value) == pytest.approx(0.3 * np.log(2) * 3.5 / 3)


@pytest.mark.parametrize("scored_alike", [True, False])
def test_the_update_scores_the_truncated_policy_that_sampled(sampling_of, scored_alike: bool) -> None:
    """On a mesh and over micro-steps it agrees with the rollout; scoring the whole vocabulary instead would show."""
    settings = {"top_k": 20, "top_p": 0.8}
    plan = plan_of(2, 1, 2, micro_steps=2)
    mesh = build_mesh(plan, jax.devices()[: plan.devices_per_process])
    params = random_params(MODEL, 1, mesh, jnp.float32)
    rollout = Rollout(
        MODEL, mesh, sampling_of(6, 0.9, **settings), stop_ids=(3, 4), pad_id=0, compute_dtype=jnp.float32
    )
    done = rollout.generate(params, PROMPTS, range(2), 0, 0, 8, samples=4)
    rows = [
        TrainRow(
            PROMPTS[row // 4],
            done.tokens[row, :length].tolist(),
            0.5,
            rollout_logprobs=done.sampled_logprobs[row, :length],
        )
        for row, length in enumerate(done.lengths)
    ]
    state = init_state(params, ADAMW, mesh)
    truncation = Truncation(**settings) if scored_alike else Truncation()
    score = make_scorer(MODEL, mesh, temperature=0.9, truncation=truncation, compute_dtype=jnp.float32, remat="layer")
    update = make_update(score, mesh, ADAMW, state, algorithm=GRPO, longest=6)
    batch = build_train_batch(rows, plan, mesh, pad_id=0, sizes=BatchSizes(prompt=8, completion=6, places=12))
    measured = update(state, batch)[1]
    assert (float(measured["mismatch_largest"]) < 1e-4) == scored_alike
    assert (float(measured["mismatch_k3"]) < 1e-6) == scored_alike
