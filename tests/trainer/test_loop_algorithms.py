"""Algorithms beyond plain GRPO, end to end: as processes of a pod, on one device and on many."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import Launched, resolved, sums

from trainer.contract.run import Algorithm
from trainer.grpo.advantages import batch_advantages, group_advantages
from trainer.learning import local_rows, step_advantages


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


def test_whitening_sees_the_completions_of_all_processes(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """With K = 1, two processes of four devices train with reinforce++ what one device does, and do learn."""
    settings: dict[str, Any] = {
        "steps": 2,
        "algorithm": {"preset": "reinforce++"},
        "rollout": {"batch_size": 16, "num_pre_q": 1, "global_length": 32, "max_length_sample": 16},
    }
    runs = {}
    for name, processes, devices, mesh in (("one", 1, 1, "auto"), ("two", 2, 4, "2,2,2")):
        run = resolved(byte_model, data, tmp_path / name, processes, devices, mesh_shape=mesh, **settings)
        runs[name] = Launched(run, tmp_path / f"{name}-scratch")
        runs[name].finish()
    assert_same_training(runs["two"], runs["one"])
    assert all(row["update/grad_norm"] > 0 for row in runs["one"].metrics)


def algorithm_of(**choice: Any) -> Algorithm:
    fields = {"loss": "clip", "ratio": "token", "epsilon_low": 0.2, "epsilon_high": 0.2, "dual_clip": None}
    fields |= {"aggregation": "token-mean", "ppo_epochs": 1, "beta": 0.0, "kl": "k3", "mask_truncated": False}
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
        found = step_advantages(totals, 3, algorithm_of(advantage=advantage, deviation=deviation))
        assert found.tolist() == values.ravel().tolist()


def test_a_process_takes_its_rows_out_of_each_pass(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """Rows of the step follow pass, process and place: of 2 passes, process 1 of 2 has the second half of each."""
    rollout = {"batch_size": 16, "prompt_batch_size": 2, "num_pre_q": 2, "global_length": 32, "max_length_sample": 16}
    plan = resolved(byte_model, data, tmp_path, 2, 1, rollout=rollout).batch
    assert (plan.passes, plan.processes) == (2, 2)
    assert local_rows(np.arange(16, dtype=np.float32), plan, 1).tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
