"""What makes a run the run that it is: changes that it goes on with, and changes that make it another one."""

import json
from typing import Any

import pytest

from trainer.contract.identity import BOUND, FREE, differences, identity
from trainer.contract.run import Machine, RunConfig, resolve_run
from trainer.contract.runner import parse_runner
from trainer.contract.violations import Spelling

BASE: dict[str, Any] = {"model_path": "a/b", "rollout": {"batch_size": 128}}


def resolved(processes: int = 4, **data: Any) -> RunConfig:
    parsed = parse_runner(BASE | data, Spelling.RUNNER)
    resolution = resolve_run(parsed, Machine(processes, 4, processes, 1, "tpu"), "job", Spelling.RUNNER)
    assert resolution.run is not None, resolution.violations
    return resolution.run


def told(run: RunConfig, base: RunConfig | None = None) -> list[str]:
    return [str(one) for one in differences(json.loads((base or resolved()).to_json()), run) if one.matters]


@pytest.mark.parametrize(
    ("changed", "lines"),
    [
        ({"model_path": "a/c"}, ['model_path: "a/b" -> "a/c"']),
        ({"seed": 1}, ["seed: 0 -> 1"]),
        ({"precision": {"params": "bfloat16"}}, ['precision.params: "float32" -> "bfloat16"']),
        ({"data": {"train": "mine.jsonl"}}, ['data.train: "gsm8k" -> "mine.jsonl"']),
        ({"rollout": {"batch_size": 64}}, ["rollout.batch_size: 128 -> 64"]),
        ({"rollout": {"batch_size": 128, "num_pre_q": 4}}, ["rollout.num_pre_q: 8 -> 4"]),
        ({"rollout": {"batch_size": 128, "top_k": 5}}, ["rollout.top_k: 0 -> 5"]),
        ({"train": {"ppo_epochs": 2}}, ["train.ppo_epochs: 1 -> 2"]),
        ({"algorithm": {"epsilon_high": 0.3}}, ["algorithm.epsilon_high: 0.2 -> 0.3"]),
        ({"optimizer": {"learning_rate": 0.5}}, ["optimizer.learning_rate: 1e-06 -> 0.5"]),
        ({"rewards": [{"name": "correct", "weight": 2}]}, ["rewards[0].weight: 1.0 -> 2.0"]),
    ],
    ids=str,
)
def test_what_a_run_learns_from_is_bound(changed: dict[str, Any], lines: list[str]) -> None:
    """Model, seed, data, batch, algorithm, optimizer and rewards make another run, told at the user's own path."""
    run = resolved(**changed)
    assert told(run)[:1] == lines
    assert identity(run) != identity(resolved())


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 500},
        {"eval_every_steps": 5, "eval_batches": 2, "eval_split": "train", "data": {"eval": "other.jsonl"}},
        {"checkpoint": {"every_steps": 5, "every_minutes": 1, "keep": 9, "resume": "Never"}},
        {"mesh_shape": "2,4,2", "train": {"micro_batch_size": 8, "on_non_finite": "Skip"}},
        {"processes": 2, "precision": {"remat": "none"}},
        {
            "output": {"uri": "/elsewhere"},
            "export": {"when": "OnSuccess"},
            "wandb_project": "x",
            "progress_deadline_seconds": 60,
        },
    ],
    ids=str,
)
def test_a_run_goes_on_as_the_same_with_what_is_free(changed: dict[str, Any]) -> None:
    """How far it goes, on what machine, what is measured, kept and told may change: it is the same run."""
    run = resolved(**changed)
    assert told(run) == []
    assert identity(run) == identity(resolved())
    assert differences(json.loads(resolved().to_json()), run) != ()


def test_steps_are_bound_where_the_learning_rate_falls_with_them() -> None:
    """A rate that falls to 0 at the last step is another rate with other steps."""
    falling = {"optimizer": {"schedule": "cosine"}}
    assert told(resolved(steps=500, **falling), resolved(**falling)) == ["steps: 100 -> 500"]


def test_keys_of_a_later_version_are_not_compared() -> None:
    """What the version that began the run did not know is no difference; what this one does not know is one."""
    begun = json.loads(resolved().to_json())
    del begun["algorithm"]["kl"]
    assert differences(begun, resolved()) == ()
    assert [str(one) for one in differences(begun | {"later": 1}, resolved())] == ["later: 1 -> null"]


def test_every_free_and_bound_path_exists() -> None:
    """The lists name keys of the resolved run."""
    plain = resolved().model_dump(mode="json")
    for path in (*FREE, *BOUND):
        value: Any = plain
        for key in path.split("."):
            value = value[key]
