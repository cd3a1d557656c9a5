"""Named algorithms: what each preset stands for, and which overrides of it contradict it or could do nothing.

In: the `algorithm` and `train` sections. Out: a `Preset` with every number resolved, and violations of
`preset-conflict`. Refuses to know how a loss is computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

from trainer.contract.runner import Aggregation, AlgorithmConfig, ParsedRunner
from trainer.contract.violations import Spelling, Violation, shown

Advantage = Literal["grpo", "dr_grpo", "rloo", "reinforce++"]
Deviation = Literal["population", "sample"]
Loss = Literal["clip", "cispo"]
Ratio = Literal["token", "sequence"]
Estimate = Literal["k1", "k2", "k3"]


@dataclass(frozen=True, slots=True)
class Preset:
    """One algorithm's numbers; `has_kl` tells whether its publication has a KL term, or leaves room for one."""

    advantage: Advantage = "grpo"
    deviation: Deviation = "population"
    loss: Loss = "clip"
    ratio: Ratio = "token"
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    dual_clip: float | None = None
    aggregation: Aggregation = "token-mean"
    kl: Estimate = "k3"
    mask_truncated: bool = False
    overlong_buffer: int = 0
    importance_cap: float | None = None
    dynamic_sampling: int = 1
    has_kl: bool = True


PRESETS = {
    # https://arxiv.org/abs/2402.03300, with the mean over all tokens of the batch in the place of the mean of means.
    "grpo": Preset(),
    # https://arxiv.org/abs/2503.20783
    "dr_grpo": Preset(advantage="dr_grpo", aggregation="sequence-mean-token-sum-norm", has_kl=False),
    # https://arxiv.org/abs/2503.14476: clip-higher, token mean, overlong filtering, dynamic sampling. That has no bound
    # there; the authors' script has max_num_gen_batches=10, where a batch is three times the prompts of a step:
    # https://github.com/volcengine/verl/blob/e2e729f438668f6fcacfd95e1b2912037552f8f7/recipe/dapo/run_dapo_qwen2.5_32b.sh
    "dapo": Preset(epsilon_high=0.28, mask_truncated=True, dynamic_sampling=10, has_kl=False),
    # https://arxiv.org/abs/2402.14740: a completion is one action, so its log-probabilities are summed. The paper makes
    # one update on a batch; with more, the clip is that of tokens.
    "rloo": Preset(advantage="rloo", aggregation="sequence-mean-token-sum"),
    # https://arxiv.org/abs/2501.03262
    "reinforce++": Preset(advantage="reinforce++"),
    # https://arxiv.org/abs/2507.18071, section 5.1
    "gspo": Preset(ratio="sequence", epsilon_low=3e-4, epsilon_high=4e-4, aggregation="sequence-mean-token-mean"),
    # https://arxiv.org/abs/2506.13585 has no lower bound and no KL term; its upper bound is 1 + ε there as here, and 5
    # that of https://arxiv.org/abs/2510.13786.
    "cispo": Preset(loss="cispo", epsilon_low=1.0, epsilon_high=4.0, has_kl=False),
}

GROUPED = ("grpo", "dr_grpo", "rloo")
"""Estimators that compare the completions of one prompt."""

OVERRIDES = tuple(field.name for field in fields(Preset) if field.name in AlgorithmConfig.model_fields)


def resolve_preset(algorithm: AlgorithmConfig) -> Preset:
    """The preset with its overrides laid over it."""
    given = {name: getattr(algorithm, name) for name in OVERRIDES}
    return replace(PRESETS[algorithm.preset], **{name: value for name, value in given.items() if value is not None})


def check_preset(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    """Overrides that turn a preset into another algorithm, or that could have no effect."""
    if not parsed.knows("algorithm.preset"):
        return
    algorithm, train = parsed.config.algorithm, parsed.config.train
    name, preset = algorithm.preset, PRESETS[algorithm.preset]
    yield from _defining(parsed, spelling)
    yield from _without_effect(parsed, spelling)
    yield from _dual_clip(parsed, spelling)
    yield from _overlong_buffer(parsed, spelling)
    yield from _importance_cap(parsed, spelling)
    yield from _dynamic_sampling(parsed, spelling)
    if parsed.knows("train.beta") and train.beta > 0 and not preset.has_kl:
        message = f"{train.beta} weighs a KL term, and the preset {name} is defined without one; leave it out"
        yield _conflict(spelling, "train.beta", train.beta, message)
    if parsed.knows("algorithm.kl", "train.beta") and algorithm.kl is not None and train.beta == 0:
        message = (
            f"{shown(algorithm.kl)} estimates a KL term whose weight {spelling.path('train.beta')} is 0, so it would "
            "do nothing; leave it out, or set that weight"
        )
        yield _conflict(spelling, "algorithm.kl", algorithm.kl, message)


def _defining(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    """An algorithm is its estimator, and GSPO and CISPO are their ratios."""
    algorithm = parsed.config.algorithm
    defining = {"advantage": "advantage"} | ({"ratio": "ratio"} if algorithm.preset in ("gspo", "cispo") else {})
    for key, word in defining.items():
        own, given = getattr(PRESETS[algorithm.preset], key), getattr(algorithm, key)
        if parsed.knows(f"algorithm.{key}") and given not in (None, own):
            message = (
                f"{shown(given)} contradicts the preset {algorithm.preset}, which is defined by its {word} {own}; "
                "leave it out, or choose another preset"
            )
            yield _conflict(spelling, f"algorithm.{key}", given, message)


def _without_effect(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    algorithm = parsed.config.algorithm
    preset = PRESETS[algorithm.preset]
    if preset.loss == "cispo":
        for key, reason in (
            ("epsilon_low", "whose ratio has no lower bound"),
            ("dual_clip", "whose ratio is bounded for good and bad completions alike"),
        ):
            yield from _idle(parsed, spelling, key, reason)
    if preset.advantage != "grpo":
        yield from _idle(parsed, spelling, "deviation", "whose advantage divides by no deviation of a group")


def _idle(parsed: ParsedRunner, spelling: Spelling, key: str, reason: str) -> Iterator[Violation]:
    value = getattr(parsed.config.algorithm, key)
    if parsed.knows(f"algorithm.{key}") and value is not None:
        message = (
            f"{shown(value)} would do nothing in the preset {parsed.config.algorithm.preset}, {reason}; leave it out"
        )
        yield _conflict(spelling, f"algorithm.{key}", value, message)


def _dual_clip(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    """Below the upper clip, the second bound would also cut into completions that did well."""
    algorithm = parsed.config.algorithm
    bound, high = algorithm.dual_clip, resolve_preset(algorithm).epsilon_high
    known = parsed.knows("algorithm.dual_clip", "algorithm.epsilon_high")
    if known and bound is not None and PRESETS[algorithm.preset].loss == "clip" and bound <= 1.0 + high:
        message = (
            f"{bound:g} must be above 1 + {spelling.path('algorithm.epsilon_high')} = {1.0 + high:g}, where the clip "
            "of good completions lies; use 3, or leave it out"
        )
        yield _conflict(spelling, "algorithm.dual_clip", bound, message)


def _overlong_buffer(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    """With a buffer as long as the longest completion, the first token would already be punished."""
    buffer, longest = parsed.config.algorithm.overlong_buffer, parsed.config.rollout.max_length_sample
    known = parsed.knows("algorithm.overlong_buffer", "rollout.max_length_sample")
    if known and buffer is not None and buffer >= longest:
        message = (
            f"{buffer} tokens must be fewer than {spelling.path('rollout.max_length_sample')} = {longest}, at whose "
            f"end they lie; use {max(longest // 5, 1) if longest > 1 else 0}, a fifth of it, or leave it out"
        )
        yield _conflict(spelling, "algorithm.overlong_buffer", buffer, message)


def _importance_cap(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    algorithm = parsed.config.algorithm
    known = parsed.knows("algorithm.importance_cap", "algorithm.ratio")
    if known and algorithm.importance_cap is not None and resolve_preset(algorithm).ratio == "sequence":
        message = (
            f"{algorithm.importance_cap} bounds a weight of each token, and the ratio of this algorithm is one for a "
            "whole completion, so that no token weighs more than another; leave it out"
        )
        yield _conflict(spelling, "algorithm.importance_cap", algorithm.importance_cap, message)


def _dynamic_sampling(parsed: ParsedRunner, spelling: Spelling) -> Iterator[Violation]:
    """What compares with the whole batch learns from a group without variance too."""
    algorithm = parsed.config.algorithm
    times, preset = algorithm.dynamic_sampling, algorithm.preset
    if (
        parsed.knows("algorithm.dynamic_sampling")
        and times not in (None, 1)
        and PRESETS[preset].advantage not in GROUPED
    ):
        message = (
            f"{times} would leave out groups without variance, and the preset {preset} compares completions with those "
            "of the whole batch, not of their group; leave it out"
        )
        yield _conflict(spelling, "algorithm.dynamic_sampling", times, message)


def _conflict(spelling: Spelling, path: str, value: object, message: str) -> Violation:
    return Violation("preset-conflict", spelling.path(path), value, message)
