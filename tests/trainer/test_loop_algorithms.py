"""Algorithms beyond plain GRPO, end to end: as processes of a pod, on one device and on many."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import Launched, resolved, sums

from trainer.asking import Answers
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.contract.run import Algorithm
from trainer.data import Question
from trainer.experience import Experience, Table
from trainer.grpo.advantages import batch_advantages, group_advantages
from trainer.learning import Learner, step_advantages
from trainer.rewards import Scores
from trainer.spoiled import SpoiledSteps


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums(tmp_path_factory.mktemp("data") / "sums.jsonl")


def assert_same_training(ours: Launched, theirs: Launched) -> None:
    """The same rewards, and an update that is the same to rounding."""
    for mine, other in zip(ours.metrics, theirs.metrics, strict=True):
        assert mine.keys() == other.keys()
        assert mine["reward/total/mean"] == other["reward/total/mean"]
        for name in mine:
            if name.startswith("update/"):
                assert mine[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


@pytest.mark.long
def test_whitening_sees_the_completions_of_all_processes(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """reinforce++ with K = 1, two updates a step and a KL term: two processes of four devices do what one device does.

    The policy leaves the reference with each update, in the first step as far as it leaves its old self (to second
    order, in which the estimates agree); the rate falls with updates, not with steps.
    """
    settings: dict[str, Any] = {
        "steps": 2,
        "algorithm": {"preset": "reinforce++", "overlong_buffer": 8, "importance_cap": 2.0},
        "train": {"ppo_epochs": 2, "beta": 0.1},
        "optimizer": {"learning_rate": 1e-3, "schedule": "linear"},
        "rollout": {"batch_size": 16, "num_pre_q": 1, "global_length": 32, "max_length_sample": 16},
    }
    runs = {}
    for name, processes, devices, mesh in (("one", 1, 1, "auto"), ("two", 2, 4, "2,2,2")):
        run = resolved(byte_model, data, tmp_path / name, processes, devices, mesh_shape=mesh, **settings)
        runs[name] = Launched(run, tmp_path / f"{name}-scratch")
        runs[name].finish()
    assert_same_training(runs["two"], runs["one"])
    first, second = runs["one"].metrics
    # Of random tokens, nearly every completion reaches its bound, where the penalty is 1.
    assert -1 <= first["reward/overlong_penalty"] < -0.5
    # Both programs compute in float32, so no token is twice as likely to one of them.
    assert first["update/importance_cut"] == 0 < first["update/mismatch_largest"] < 1e-3
    assert 0 < first["update/kl_reference"] == pytest.approx(first["update/kl_old"], rel=0.2)
    assert second["update/kl_reference"] > first["update/kl_reference"]
    rates = [row["update/learning_rate"] for row in (first, second)]
    assert rates == pytest.approx([1e-3 * (1 + 0.75) / 2, 1e-3 * (0.5 + 0.25) / 2])


def algorithm_of(**choice: Any) -> Algorithm:
    fields = {"loss": "clip", "ratio": "token", "epsilon_low": 0.2, "epsilon_high": 0.2, "dual_clip": None}
    fields |= {
        "aggregation": "token-mean",
        "ppo_epochs": 1,
        "beta": 0.0,
        "kl": "k3",
        "mask_truncated": False,
        "overlong_buffer": 0,
        "importance_cap": None,
        "dynamic_sampling": 1,
    }
    return Algorithm(**{"deviation": "population", "on_non_finite": "Fail", **fields, **choice})


def test_each_algorithm_asks_for_its_own_advantages() -> None:
    """The estimator and the deviation are the algorithm's; a total of NaN is an unscorable row."""
    totals = np.array([0.0, 1.0, np.nan, 3.0, 3.0, 5.0])
    rewards, scored = totals.reshape(2, 3), np.isfinite(totals).reshape(2, 3)
    expected = {
        ("grpo", "population"): group_advantages(rewards, scored),
        ("grpo", "sample"): group_advantages(rewards, scored, ddof=1),
        ("rloo", "population"): group_advantages(rewards, scored, estimator="rloo"),
        ("reinforce++", "population"): batch_advantages(rewards, scored),
    }
    assert len({values.tobytes() for values in expected.values()}) == len(expected)
    for (advantage, deviation), values in expected.items():
        found = step_advantages(totals, np.ones(6), 3, 16, algorithm_of(advantage=advantage, deviation=deviation))
        assert found.tolist() == values.ravel().tolist()


def test_a_long_completion_is_punished_before_it_is_compared() -> None:
    """Rewards 1, 1 with lengths 12 and 14 of 16, buffer 4: the second counts 0.5, and what is unscorable stays so."""
    algorithm = algorithm_of(advantage="dr_grpo", overlong_buffer=4)
    totals, lengths = np.array([1.0, 1.0, 1.0, np.nan]), np.array([12.0, 14.0, 3.0, 16.0])
    assert step_advantages(totals, lengths, 2, 16, algorithm).tolist() == [0.25, -0.25, 0, 0]


def test_a_step_that_is_not_finite_is_skipped_and_kept(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """One question of the three steps gives an infinite loss: with Skip the run goes on, with Fail it ends with 7.

    Either way the batch lies in the run folder, every row with its reward and advantage.
    """
    rewards, algorithm = [{"python": "reward_samples:explodes_on_seven"}], {"preset": "dr_grpo"}
    ends = {}
    for choice in ("Skip", "Fail"):
        train = {"on_non_finite": choice}
        folder = tmp_path / choice
        run = resolved(byte_model, data, folder, 1, 1, rewards=rewards, algorithm=algorithm, train=train)
        ends[choice] = Launched(run, tmp_path / f"{choice}-scratch")
        ended = ends[choice].wait()[0]
        assert ended.code == {"Skip": 0, "Fail": 7}[choice], ended.err
    finite = [row["update/finite"] for row in ends["Skip"].metrics]
    assert sorted(finite) == [0.0, 1.0, 1.0]
    spoiled = ends["Skip"].metrics[finite.index(0.0)]
    assert (spoiled["update/loss"], spoiled["step"]) == (None, finite.index(0.0) + 1)
    assert f"the step was not applied, its batch is in {tmp_path}" in ended.cause.message
    for launched in ends.values():
        path = launched.folder / f"non-finite/step-{spoiled['step']:08d}/process-0.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == 32
        blamed = [row for row in rows if row["prompt"].startswith("7 ")]
        assert [row["reward"] for row in blamed] == [0.0, 3e38, 0.0, 3e38]
        assert [row["advantage"] for row in blamed] == pytest.approx([-1.5e38, 1.5e38] * 2)


def test_steps_are_not_skipped_for_ever(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """The tenth skipped step in a row ends the run; a finite one in between begins the count anew."""
    run = resolved(byte_model, data, tmp_path, 1, 1, train={"on_non_finite": "Skip"})
    spoiled, bad = SpoiledSteps(ProcessConfig(run, "0123abcd", 0, None, 0)), float("nan")
    nothing = Experience([], [Scores((), *[np.zeros(0)] * 3, {})], None, [])
    measured = {"update/finite": 0.0, "update/loss": bad, "update/grad_norm": bad}
    for step in range(9):
        spoiled.check(step, measured, nothing, lambda found: [])
    spoiled.check(9, {"update/finite": 1.0}, nothing, lambda found: [])
    for step in range(10, 19):
        spoiled.check(step, measured, nothing, lambda found: [])
    with pytest.raises(RunError, match="10 such steps in a row; lower optimizer") as raised:
        spoiled.check(19, measured, nothing, lambda found: [])
    assert raised.value.code == ExitCode.NON_FINITE


def test_a_process_takes_its_rows_out_of_each_pass(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """Rows of the step follow pass, process and place: of 2 passes, process 1 of 2 has the second half of each."""
    rollout = {"batch_size": 16, "prompt_batch_size": 2, "num_pre_q": 2, "global_length": 32, "max_length_sample": 16}
    run = resolved(byte_model, data, tmp_path, 2, 1, rollout=rollout, algorithm={"preset": "dr_grpo"})
    assert (run.batch.passes, run.batch.processes) == (2, 2)
    # Group number n has rewards 0 and 2 n, so that its advantages are -n and n.
    totals = np.array([[0.0, 2.0 * number] for number in range(8)]).ravel()
    question = Question("?", (5,), {})
    answers = [Answers([question] * 4, [[6]] * 4, [""] * 4, np.ones(4, bool))] * 2
    table = Table(*[totals] * 6)
    scores = [Scores((), np.zeros(0), np.zeros(0), totals[rows], {}) for rows in (slice(4, 8), slice(12, 16))]
    learner = Learner(run, 1, None, 0, None, None, 0, None)
    rows = learner.rows(Experience(answers, scores, table, []))
    assert [row.advantage for row in rows] == [-2, 2, -3, 3, -6, 6, -7, 7]
