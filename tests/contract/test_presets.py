"""Named algorithms: the numbers that each stands for, and the overrides that are refused."""

from typing import Any

import pytest

from trainer.contract.presets import PRESETS
from trainer.contract.run import Algorithm, Machine, Resolution, resolve_run
from trainer.contract.runner import parse_runner
from trainer.contract.violations import Spelling


def resolution(algorithm: dict[str, Any], group: int = 8, **train: Any) -> Resolution:
    rollout = {"batch_size": 128, "num_pre_q": group}
    tree = {"model_path": "a/b", "rollout": rollout, "algorithm": algorithm, "train": train}
    return resolve_run(parse_runner(tree, Spelling.RUNNER), Machine(1, 8, 1, 1, "tpu"), "x", Spelling.RUNNER)


def resolved(**algorithm: Any) -> Algorithm:
    found = resolution(algorithm)
    assert found.run is not None, found.violations
    return found.run.algorithm


def conflicts(algorithm: dict[str, Any], **train: Any) -> list[str]:
    return [str(one) for one in resolution(algorithm, **train).violations if one.rule == "preset-conflict"]


NUMBERS = {
    "grpo": ("grpo", "clip", "token", 0.2, 0.2, "token-mean", False),
    "dr_grpo": ("dr_grpo", "clip", "token", 0.2, 0.2, "sequence-mean-token-sum-norm", False),
    "dapo": ("grpo", "clip", "token", 0.2, 0.28, "token-mean", True),
    "rloo": ("rloo", "clip", "token", 0.2, 0.2, "sequence-mean-token-sum", False),
    "reinforce++": ("reinforce++", "clip", "token", 0.2, 0.2, "token-mean", False),
    "gspo": ("grpo", "clip", "sequence", 3e-4, 4e-4, "sequence-mean-token-mean", False),
    "cispo": ("grpo", "cispo", "token", 1.0, 4.0, "token-mean", False),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_numbers_of_its_paper(preset: str) -> None:
    """Each named algorithm resolves to these, without dual clip, with the population's deviation and k3."""
    found = resolved(preset=preset)
    assert NUMBERS[preset] == (
        found.advantage,
        found.loss,
        found.ratio,
        found.epsilon_low,
        found.epsilon_high,
        found.aggregation,
        found.mask_truncated,
    )
    assert (found.deviation, found.dual_clip, found.kl) == ("population", None, "k3")
    assert (found.overlong_buffer, found.importance_cap) == (0, None)
    assert found.dynamic_sampling == (10 if preset == "dapo" else 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("advantage", "grpo"),
        ("deviation", "sample"),
        ("ratio", "sequence"),
        ("epsilon_low", 0.1),
        ("epsilon_high", 0.3),
        ("dual_clip", 3.0),
        ("aggregation", "sequence-mean-token-mean"),
        ("mask_truncated", True),
        ("overlong_buffer", 100),
        ("importance_cap", 2.0),
        ("dynamic_sampling", 3),
    ],
)
def test_every_number_may_be_overridden(key: str, value: Any) -> None:
    """What the user writes stands in the resolved algorithm, and nothing else changes."""
    assert resolved(**{key: value}) == resolved().model_copy(update={key: value})


def test_an_override_may_undo_what_a_preset_turns_on() -> None:
    """False and a number below the preset's are values, not absent ones."""
    found = resolved(preset="dapo", mask_truncated=False, epsilon_high=0.2, dynamic_sampling=1)
    assert (found.mask_truncated, found.epsilon_high, found.dynamic_sampling) == (False, 0.2, 1)


def test_an_override_that_contradicts_its_preset_is_refused() -> None:
    """A preset is a published algorithm: another advantage, ratio, or a KL term it has not, makes it another one."""
    assert conflicts({"preset": "rloo", "advantage": "grpo"}) == [
        'algorithm.advantage: "grpo" contradicts the preset rloo, which is defined by its advantage rloo; leave it '
        "out, or choose another preset"
    ]
    assert conflicts({"preset": "gspo", "ratio": "token"}) == [
        'algorithm.ratio: "token" contradicts the preset gspo, which is defined by its ratio sequence; leave it out, '
        "or choose another preset"
    ]
    for preset in ("dr_grpo", "dapo", "cispo"):
        assert conflicts({"preset": preset}, beta=0.1) == [
            f"train.beta: 0.1 weighs a KL term, and the preset {preset} is defined without one; leave it out"
        ]


def test_an_override_that_could_do_nothing_is_refused() -> None:
    """A number that the algorithm never looks at would only look as if it did something."""
    assert conflicts({"kl": "k3"}) == [
        'algorithm.kl: "k3" estimates a KL term whose weight train.beta is 0, so it would do nothing; leave it out, '
        "or set that weight"
    ]
    assert conflicts({"preset": "cispo", "epsilon_low": 0.2, "dual_clip": 3.0}) == [
        "algorithm.epsilon_low: 0.2 would do nothing in the preset cispo, whose ratio has no lower bound; leave it out",
        "algorithm.dual_clip: 3.0 would do nothing in the preset cispo, whose ratio is bounded for good and bad "
        "completions alike; leave it out",
    ]
    assert conflicts({"preset": "rloo", "deviation": "sample"}) == [
        'algorithm.deviation: "sample" would do nothing in the preset rloo, whose advantage divides by no deviation of '
        "a group; leave it out"
    ]


def test_only_groups_without_variance_are_replaced() -> None:
    """An estimator that looks beyond the group learns from a group of equal rewards as from any other."""
    assert conflicts({"preset": "reinforce++", "dynamic_sampling": 4}) == [
        "algorithm.dynamic_sampling: 4 would leave out groups without variance, and the preset reinforce++ compares "
        "completions with those of the whole batch, not of their group; leave it out"
    ]
    assert conflicts({"preset": "reinforce++", "dynamic_sampling": 1}) == []
    assert conflicts({"preset": "rloo", "dynamic_sampling": 4}) == []


def test_a_weight_of_tokens_needs_a_ratio_of_tokens() -> None:
    """GSPO gives all tokens of a completion one ratio; weights of their own would undo that."""
    message = (
        "algorithm.importance_cap: 2.0 bounds a weight of each token, and the ratio of this algorithm is one for a "
        "whole completion, so that no token weighs more than another; leave it out"
    )
    assert conflicts({"preset": "gspo", "importance_cap": 2.0}) == [message]
    assert conflicts({"ratio": "sequence", "importance_cap": 2.0}) == [message]
    assert conflicts({"preset": "cispo", "importance_cap": 2.0}) == []


def test_the_dual_clip_lies_above_the_clip() -> None:
    """Below it, completions that did well would be cut too."""
    assert conflicts({"dual_clip": 1.25, "epsilon_high": 0.28}) == [
        "algorithm.dual_clip: 1.25 must be above 1 + algorithm.epsilon_high = 1.28, where the clip of good completions "
        "lies; use 3, or leave it out"
    ]
    assert conflicts({"dual_clip": 1.25}) == []


def test_the_overlong_buffer_is_shorter_than_a_completion() -> None:
    """A buffer over the whole length would punish every token; the fix is the paper's share of it."""
    assert conflicts({"overlong_buffer": 512}) == [
        "algorithm.overlong_buffer: 512 tokens must be fewer than rollout.max_length_sample = 512, at whose end they "
        "lie; use 102, a fifth of it, or leave it out"
    ]
    assert conflicts({"overlong_buffer": 511}) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_only_an_estimator_that_looks_beyond_the_group_takes_one_completion(preset: str) -> None:
    """With K = 1, reinforce++ still compares with the batch; all others compare inside a group and are refused."""
    rules = {violation.rule for violation in resolution({"preset": preset}, group=1).violations}
    assert rules == (set() if preset == "reinforce++" else {"group"})
