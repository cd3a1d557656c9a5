"""Rules of the runner's tree that are not arithmetic: required, range, preset-conflict, reward-weights."""

from typing import Any

import pytest

from trainer.contract.checks import BUCKET_PATHS
from trainer.contract.run import Machine, resolve_run
from trainer.contract.runner import parse_runner
from trainer.contract.violations import Spelling


def lines(**data: Any) -> list[str]:
    parsed = parse_runner({"model_path": "a/b", "rollout": {"batch_size": 128}} | data, Spelling.RUNNER)
    machine = Machine(1, 8, 1, 1, "tpu")
    return [f"{found.rule} {found}" for found in resolve_run(parsed, machine, "x", Spelling.RUNNER).violations]


def test_a_run_needs_a_model() -> None:
    """Without a model there is nothing to train; the tree itself may leave it out."""
    assert lines(model_path=None) == ["required model_path: null is no model; give a hub id[@revision] or a folder"]


def tree_of(path: str, value: Any) -> dict[str, Any]:
    """A small tree with one value at a dotted path."""
    tree: dict[str, Any] = {"model_path": "a/b", "rollout": {"batch_size": 128}}
    *parents, last = path.split(".")
    section = tree
    for parent in parents:
        section = section.setdefault(parent, {})
    section[last] = value
    return tree


def test_adapters_stand_beside_named_weights() -> None:
    """A module that a layer does not have is refused with those that it has."""
    assert lines(lora={"target_modules": ["v_proj", "down_proj"]}) == []
    assert lines(lora={"target_modules": ["v_proj", "lm_head"]}) == [
        'range lora.target_modules[1]: "lm_head" must be one of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, '
        "down_proj; use one of them"
    ]


@pytest.mark.parametrize("path", BUCKET_PATHS)
def test_an_address_in_a_bucket_names_a_bucket_and_a_path(path: str) -> None:
    """gs://BUCKET/PATH is accepted wherever a path is; half of it is refused before anything is reached."""
    for address in ("gs://", "gs://bucket", "gs://bucket/", "gs:/bucket/path", "gs://Bucket/path", "gs://bucket//path"):
        assert lines(**tree_of(path, address)) == [
            f'range {path}: "{address}" must be gs://BUCKET/PATH, a bucket\'s name and a path in it; write it so'
        ]
    assert lines(**tree_of(path, "gs://my-bucket.example/a/b.jsonl")) == []


def test_the_conversation_is_no_variable_of_a_chat_template() -> None:
    """What a model's template takes besides is its own matter; what every template is given is the trainer's."""
    assert lines(data={"chat_template_kwargs": {"enable_thinking": False, "tools": None}}) == []
    assert lines(data={"chat_template_kwargs": {"add_generation_prompt": False}}) == [
        "range data.chat_template_kwargs.add_generation_prompt: false would replace what the trainer gives every chat "
        "template; leave it out"
    ]


def test_samples_of_an_evaluation_need_a_temperature() -> None:
    """Several greedy answers to one question are one answer; with a temperature they are accepted."""
    assert lines(eval={"samples": 4}) == [
        "range eval.samples: 4 must be 1 where eval.temperature is 0: greedy answers are all the same; "
        "use 1, or set that temperature"
    ]
    assert lines(eval={"samples": 4, "temperature": 0.6}) == []


def test_the_best_checkpoint_is_chosen_by_a_metric_of_the_evaluations() -> None:
    """A run without evaluations has no such metric; of a run with them, those that grow with the model are named."""
    assert lines(checkpoint={"best": "eval/reward/total/mean"}) == [
        'required checkpoint.best: "eval/reward/total/mean" needs evaluations; give eval_every_steps, or leave it out'
    ]
    assert lines(checkpoint={"best": "reward"}, eval_every_steps=5, rewards=[{"name": "correct"}]) == [
        'range checkpoint.best: "reward" is no metric of this run\'s evaluations; use one of eval/reward/total/mean, '
        "eval/reward/correct/mean"
    ]
    sampled = {"eval_every_steps": 5, "eval": {"samples": 6, "temperature": 1.0}}
    for best in ("eval/reward/tags/mean", "eval/pass@1", "eval/pass@4", "eval/maj@6"):
        assert lines(checkpoint={"best": best}, **sampled) == []
    assert len(lines(checkpoint={"best": "eval/pass@3"}, **sampled)) == 1


def test_reward_weights_are_as_many_as_rewards() -> None:
    """The shorthand for weights has one for each reward, named in the error."""
    assert lines(reward_weights=[1, 1]) == [
        "reward-weights reward_weights: [1.0, 1.0] must have one weight for each of the 3 rewards (correct, format, "
        "tags), and has 2; give as many weights as rewards"
    ]
    assert lines(reward_weights=[1, 0, 2]) == []


def test_weights_that_are_given_twice_must_agree() -> None:
    """Two different weights for one reward are a mistake in one of them."""
    rewards = [{"name": "correct", "weight": 2.0}]
    assert lines(rewards=rewards, reward_weights=[1]) == [
        "reward-weights reward_weights: [1.0] contradicts the weights that rewards gives; keep one of the two"
    ]
    assert lines(rewards=rewards, reward_weights=[2]) == []


def test_each_reward_has_a_name_of_its_own() -> None:
    """Two rewards that would write one metric are refused; a function's name serves as its reward's."""
    rewards = [{"python": "my.rewards:short"}, {"python": "other:short"}, {"name": "brief", "python": "other:short"}]
    assert lines(rewards=rewards) == [
        'reward-weights rewards[1].name: "short" is the name of rewards[0] too; give each its own name'
    ]
    assert lines(rewards=[{}]) == [
        "required rewards[0].name: null names no reward; give one of correct, format, tags, or python"
    ]
