"""All rewards of a run over one batch of completions: rows come in, values and weighted totals go out."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.contract.run import Reward
from trainer.rewards.answers import Answer, answer_in, gold_text, judged_by_number, same_words
from trainer.rewards.builtin import format_reward, tags_reward
from trainer.rewards.isolated import CallFailedError, IsolatedFunction, Target
from trainer.rewards.pool import Pool

LONGEST_PAIR = 10.0
"""Seconds after which the process that compares two expressions is killed: sympy can hang where no signal reaches."""

_HIDDEN_COLUMNS = frozenset({"prompt", "completion", "prompts", "completions", "completion_ids", "trainer_state"})
"""Columns that would collide with the arguments of TRL's signature."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One row per completion; `columns` holds each data column as a list of the same length.

    A prompt is text, or a conversation as a list of messages; `completed` counts the training steps of the model.
    """

    prompts: list[Any]
    completions: list[str]
    completion_ids: list[list[int]]
    columns: dict[str, list[Any]]
    completed: int = 0

    def __len__(self) -> int:
        return len(self.completions)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One reward's answer: NaN where there is no number, `failed` where that is a fault and no choice."""

    values: NDArray[np.float64]
    failed: NDArray[np.bool_]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """values[reward, row] unweighted, NaN where a reward gave none; totals[row] weighted, NaN where unscorable.

    A reward that returns None is left out of that row's sum, as in TRL. A row is unscorable where every reward left it
    out, or where one failed on it (an exception, a timeout): a part that is missing by accident is no zero.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    failed: NDArray[np.bool_]
    totals: NDArray[np.float64]
    errors: dict[str, str]


class Scorer(Protocol):
    def start(self) -> None: ...
    def score(self, rows: Rows) -> Verdict: ...
    def longest_seconds(self) -> float: ...
    def abandon(self) -> None: ...
    def stop(self) -> None: ...


class RewardSet:
    """The run's rewards. `start` imports user code (LoadError tells what is wrong); `stop` ends its processes."""

    def __init__(self, rewards: Sequence[Reward], answer_field: str, steps: int) -> None:
        self.names = tuple(reward.name for reward in rewards)
        self._weights = np.array([reward.weight for reward in rewards])
        self._scorers = [_scorer(index, reward, answer_field, steps) for index, reward in enumerate(rewards)]
        self._threads = ThreadPoolExecutor(len(rewards), thread_name_prefix="reward")

    def start(self) -> None:
        for scorer in self._scorers:
            scorer.start()

    def score(self, rows: Rows) -> Scores:
        """All rewards at once; the time taken is that of the slowest."""
        if not len(rows):  # the end of an evaluation: other processes may still have rows
            nothing = np.zeros((len(self.names), 0))
            return Scores(self.names, nothing, nothing > 0, nothing[0], {})
        verdicts = list(self._threads.map(lambda scorer: scorer.score(rows), self._scorers))
        values = np.stack([verdict.values for verdict in verdicts])
        failed = np.stack([verdict.failed for verdict in verdicts])
        errors = {
            name: verdict.error for name, verdict in zip(self.names, verdicts, strict=True) if verdict.error is not None
        }
        return Scores(self.names, values, failed, total_rewards(values, failed, self._weights), errors)

    def longest_seconds(self) -> float:
        """So long the next call of `score` may take, with every deadline used up."""
        return max(scorer.longest_seconds() for scorer in self._scorers)

    def abandon(self) -> None:
        """Cut short, from another thread, whatever `score` still waits for; its scores are not to be used."""
        for scorer in self._scorers:
            scorer.abandon()

    def stop(self) -> None:
        for scorer in self._scorers:
            scorer.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


def total_rewards(
    values: NDArray[np.float64], failed: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted sum over the reward axis; NaN where a reward failed or none gave a number.

    One of weight 0 is only watched: what it gives is no part of the sum, and where it fails nothing is missing there.
    """
    counts = (weights != 0)[:, None]
    given, failed = np.isfinite(values) & counts, failed & counts
    totals = np.sum(np.where(given, values, 0.0) * weights[:, None], axis=0)
    return np.where(failed.any(axis=0) | ~given.any(axis=0), np.nan, totals)


def _scorer(index: int, reward: Reward, answer_field: str, steps: int) -> Scorer:
    if reward.python is not None:
        target = Target(f"rewards[{index}].python", reward.python, reward.args, reward.timeout_seconds)
        return UserReward(IsolatedFunction(target), steps)
    if reward.name == "correct":
        return Correctness(answer_field, reward.timeout_seconds)
    return TextReward({"format": format_reward, "tags": tags_reward}[reward.name])


class TextReward:
    """A reward that looks at the completion's text alone."""

    def __init__(self, function: Callable[[str], float]) -> None:
        self._function = function

    def start(self) -> None: ...

    def longest_seconds(self) -> float:
        return 0.0

    def abandon(self) -> None: ...

    def stop(self) -> None: ...

    def score(self, rows: Rows) -> Verdict:
        values = np.array([self._function(completion) for completion in rows.completions])
        return Verdict(values, np.zeros(len(rows), bool))


class UserReward:
    """A function with TRL's signature: `fn(prompts, completions, completion_ids, trainer_state, **columns)`.

    As in TRL, completions are text where the prompts are, and conversations of one message where those are:
    https://huggingface.co/docs/trl/grpo_trainer#using-a-custom-reward-function
    """

    def __init__(self, function: IsolatedFunction, steps: int) -> None:
        self._function = function
        self._steps = steps

    def start(self) -> None:
        self._function.start()

    def longest_seconds(self) -> float:
        return self._function.longest_seconds()

    def abandon(self) -> None:
        self._function.abandon()

    def stop(self) -> None:
        self._function.stop()

    def score(self, rows: Rows) -> Verdict:
        columns = {name: values for name, values in rows.columns.items() if name not in _HIDDEN_COLUMNS}
        prompts, completions = _as_trl(rows)
        arguments = {
            "prompts": prompts,
            "completions": completions,
            "completion_ids": rows.completion_ids,
            "trainer_state": SimpleNamespace(global_step=rows.completed, max_steps=self._steps),
        }
        try:
            numbers = self._function.call({**columns, **arguments}, len(rows))
        except CallFailedError as failure:
            return Verdict(np.full(len(rows), np.nan), np.ones(len(rows), bool), str(failure))
        values = np.array([np.nan if number is None else number for number in numbers], np.float64)
        spoiled = np.array([number is not None for number in numbers], bool) & ~np.isfinite(values)
        error = "a reward that is not finite; return None where there is none" if spoiled.any() else None
        return Verdict(np.where(spoiled, np.nan, values), spoiled, error)


def _as_trl(rows: Rows) -> tuple[list[Any], list[Any]]:
    """One kind for all rows: where any prompt is a conversation, a text is one of a single turn."""
    if all(isinstance(prompt, str) for prompt in rows.prompts):
        return rows.prompts, rows.completions
    prompts = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in rows.prompts]
    return prompts, [[{"role": "assistant", "content": text}] for text in rows.completions]


class Correctness:
    """1.0 where the completion's answer equals the row's. Numbers are compared here, the rest by math-verify."""

    def __init__(self, answer_field: str, timeout_seconds: float) -> None:
        self._answer_field = answer_field
        target = Target("rewards.correct", "trainer.rewards.mathematics:equal", {}, timeout_seconds)
        self._expressions = Pool(target)

    def start(self) -> None:
        """Nothing yet: sympy takes seconds to import, and most data never needs it."""

    def longest_seconds(self) -> float:
        return self._expressions.longest_seconds()

    def abandon(self) -> None:
        self._expressions.abandon()

    def stop(self) -> None:
        self._expressions.stop()

    def score(self, rows: Rows) -> Verdict:
        golds = [gold_text(value) for value in rows.columns[self._answer_field]]
        answers = [answer_in(completion) for completion in rows.completions]
        values = np.array([_quick(gold, answer) for gold, answer in zip(golds, answers, strict=True)], np.float64)
        open_rows = [row for row, gold in enumerate(golds) if gold is not None and np.isnan(values[row])]
        if not open_rows:
            return Verdict(values, np.zeros(len(rows), bool))
        return self._with_expressions(values, open_rows, golds, answers)

    def _with_expressions(
        self, values: NDArray[np.float64], open_rows: list[int], golds: list[str | None], answers: list[Answer]
    ) -> Verdict:
        failed = np.zeros(len(values), bool)
        calls = [{"prompts": [""], "completions": [answers[row].text], "gold": [golds[row]]} for row in open_rows]
        outcomes = self._expressions.call_each(calls, LONGEST_PAIR)
        for row, outcome in zip(open_rows, outcomes, strict=True):
            values[row] = np.nan if outcome.value is None else outcome.value
            failed[row] = outcome.value is None
        error = next((outcome.error for outcome in outcomes if outcome.error is not None), None)
        return Verdict(values, failed, error or ("math-verify ran out of time" if failed.any() else None))


def _quick(gold: str | None, answer: Answer) -> float:
    """1.0, 0.0, or NaN where there is no gold answer or the texts are expressions."""
    if gold is None:
        return np.nan
    same = judged_by_number(gold, answer)
    if same is None:
        return 1.0 if same_words(gold, answer) else np.nan
    return float(same)
