"""The rules of the runner's tree that are not batch arithmetic, checked on what could be read of it.

In: a `ParsedRunner`. Out: violations of `required`, `range`, `preset-conflict` and `reward-weights`, in any order.
Refuses to know machines; the order in which a user reads them is the work of `run.py`.
"""

import re
from collections.abc import Iterator
from typing import Any

from trainer.contract.presets import check_preset
from trainer.contract.rewardnames import BUILT_IN_REWARDS, PYTHON_REWARD, reward_name
from trainer.contract.runner import ParsedRunner, RewardConfig, RunnerConfig
from trainer.contract.violations import Spelling, Violation, shown

BUCKET_PATHS = ("model_path", "data.train", "data.eval", "checkpoint.init_from.uri", "output.uri")
"""What may lie in a bucket."""
_ADDRESS = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[^/\s][^\s]*")
"""https://docs.cloud.google.com/storage/docs/buckets#naming"""
_OWN_VARIABLES = ("add_generation_prompt", "continue_final_message", "messages", "tokenize")
"""What every chat template is given, as the conversation decides it."""


def check_tree(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    """Every violation of the tree's own rules; a rule whose field was refused does not run."""
    if parsed.knows("model_path") and parsed.config.model_path is None:
        message = "null is no model; give a hub id[@revision] or a folder"
        yield Violation("required", spelling.path("model_path"), None, message)
    yield from _addresses(parsed, spelling)
    yield from _chat_template_kwargs(parsed, spelling)
    yield from check_preset(parsed, spelling)
    yield from _greedy_samples(parsed, spelling)
    yield from _best(parsed, spelling)
    if parsed.knows("rewards"):
        yield from _rewards(parsed.config.rewards, spelling)
        if parsed.knows("reward_weights"):
            yield from _reward_weights(parsed.config, spelling)


def value_at(config: RunnerConfig, path: str) -> Any:
    """The value at a dotted path; None below a section that is null."""
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part, None)
    return value


def _addresses(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    for path in BUCKET_PATHS:
        value = value_at(parsed.config, path)
        if parsed.knows(path) and isinstance(value, str) and value.startswith("gs:") and not _ADDRESS.fullmatch(value):
            message = f"{shown(value)} must be gs://BUCKET/PATH, a bucket's name and a path in it; write it so"
            yield Violation("range", spelling.path(path), value, message)


def _chat_template_kwargs(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    path = "data.chat_template_kwargs"
    for name, value in parsed.config.data.chat_template_kwargs.items() if parsed.knows(path) else ():
        if name in _OWN_VARIABLES:
            message = f"{shown(value)} would replace what the trainer gives every chat template; leave it out"
            yield Violation("range", f"{spelling.path(path)}.{name}", value, message)


def _greedy_samples(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    evaluation = parsed.config.eval
    if parsed.knows("eval.samples", "eval.temperature") and evaluation.samples > 1 and evaluation.temperature == 0:
        path = spelling.path("eval.samples")
        message = (
            f"{evaluation.samples} must be 1 where {spelling.path('eval.temperature')} is 0: greedy answers are all "
            "the same; use 1, or set that temperature"
        )
        yield Violation("range", path, evaluation.samples, message)


def _best(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    """The metric of `checkpoint.best` is one that the run's evaluations have."""
    best, path = parsed.config.checkpoint.best, spelling.path("checkpoint.best")
    if best is None or not parsed.knows("checkpoint.best"):
        return
    if parsed.knows("eval_every_steps") and not parsed.config.eval_every_steps:
        every = spelling.path("eval_every_steps")
        yield Violation("required", path, best, f"{shown(best)} needs evaluations; give {every}, or leave it out")
    if parsed.knows("rewards", "eval.samples") and best not in (known := best_metrics(parsed.config)):
        message = f"{shown(best)} is no metric of this run's evaluations; use one of {', '.join(known)}"
        yield Violation("range", path, best, message)


def best_metrics(config: RunnerConfig) -> list[str]:
    """What `checkpoint.best` may name: metrics of evaluations of which more is better."""
    names = ["total", *(reward_name(reward.name, reward.python) for reward in config.rewards)]
    samples = config.eval.samples
    counts = [k for k in range(1, samples + 1) if k.bit_count() == 1 or k == samples] if samples > 1 else []
    solved = [f"eval/{kind}@{k}" for kind in ("pass", "maj") for k in counts]
    return [f"eval/reward/{name}/mean" for name in names] + solved


def _rewards(rewards: tuple[RewardConfig, ...], spelling: Spelling) -> Iterator[Violation]:
    first: dict[str, int] = {}
    for index, reward in enumerate(rewards):
        path = spelling.path(f"rewards[{index}]")
        if fault := _reward_fault(reward, path, spelling):
            yield fault
            continue
        name = reward_name(reward.name, reward.python)
        if name in first:
            message = (
                f"{shown(name)} is the name of {spelling.path(f'rewards[{first[name]}]')} too; give each its own name"
            )
            yield Violation("reward-weights", f"{path}.name", name, message)
        first.setdefault(name, index)


def _reward_fault(reward: RewardConfig, path: str, spelling: Spelling) -> Violation | None:
    built_in = ", ".join(BUILT_IN_REWARDS)
    if reward.name is None and reward.python is None:
        return Violation("required", f"{path}.name", None, f"null names no reward; give one of {built_in}, or python")
    if reward.python is not None and not PYTHON_REWARD.fullmatch(reward.python):
        message = f"{shown(reward.python)} must be package.module:function; write it so"
        return Violation("range", f"{path}.python", reward.python, message)
    if reward.python is None and reward.name not in BUILT_IN_REWARDS:
        message = f"{shown(reward.name)} must be one of {built_in}; use one of them, or give python"
        return Violation("range", f"{path}.name", reward.name, message)
    return None


def _reward_weights(config: RunnerConfig, spelling: Spelling) -> Iterator[Violation]:
    weights, rewards = config.reward_weights, config.rewards
    if weights is None:
        return
    path, rewards_path = spelling.path("reward_weights"), spelling.path("rewards")
    pairs = list(zip(rewards, weights, strict=False)) if "rewards" in config.model_fields_set else []
    if len(weights) != len(rewards):
        message = (
            f"{shown(list(weights))} must have one weight for each of the {len(rewards)} {rewards_path} "
            f"({', '.join(reward_name(reward.name, reward.python) for reward in rewards)}), and has {len(weights)}; "
            "give as many weights as rewards"
        )
        yield Violation("reward-weights", path, list(weights), message)
    elif any("weight" in reward.model_fields_set and reward.weight != weight for reward, weight in pairs):
        message = f"{shown(list(weights))} contradicts the weights that {rewards_path} gives; keep one of the two"
        yield Violation("reward-weights", path, list(weights), message)
