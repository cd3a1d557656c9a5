"""Asking questions: questions and parameters come in, completions with their texts and scores go out.

Training asks each question K times at random, evaluation once and greedily; what they share is here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data import Question
from trainer.rewards import RewardSet, Rows, Scores
from trainer.rollout import Rollout, StopStrings, bucket


@dataclass(frozen=True, slots=True)
class Answers:
    """The rows of one process, question by question: row = question · samples + sample.

    `token_ids` end with the stop token, or the one that completed a stop string, where one was sampled; `finished`
    (bool) tells that it was. `texts` end before the stop string. `logprobs` are those of `token_ids` under the
    distribution that was sampled, None where the choice was greedy.
    """

    questions: list[Question]
    token_ids: list[list[int]]
    texts: list[str]
    finished: NDArray[np.bool_]
    logprobs: list[NDArray[np.float32]] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What one pass of generation shares over all processes; `prompt_bucket` is the padded prompt length."""

    step: int
    seed: int
    prompt_bucket: int
    samples: int
    greedy: bool = False
    prompts_per_process: int | None = None


class Asker:
    """The model's mouth and its judges: rollout, text and rewards of one run.

    `extend` is told how many seconds the rewards, which have deadlines of their own, may take.
    """

    def __init__(
        self, rollout: Rollout, stops: StopStrings, rewards: RewardSet, extend: Callable[[float], None] = lambda _: None
    ) -> None:
        self._rollout = rollout
        self._stops = stops
        self._rewards = rewards
        self._extend = extend

    @property
    def reward_names(self) -> tuple[str, ...]:
        return self._rewards.names

    def generate(self, params: Any, questions: Sequence[Question], prompt_ids: Sequence[int], call: Call) -> Answers:
        """Complete the local `questions`, whose global numbers are `prompt_ids`. All processes call it together."""
        completions = self._rollout.generate(
            params,
            [question.token_ids for question in questions],
            prompt_ids,
            call.step,
            call.seed,
            call.prompt_bucket,
            samples=call.samples,
            greedy=call.greedy,
            prompts_per_process=call.prompts_per_process,
        )
        pairs = zip(completions.tokens, completions.lengths, strict=True)
        token_ids = [tokens[:length].tolist() for tokens, length in pairs]
        asked = [question for question in questions for _ in range(call.samples)]
        sampled = completions.sampled_logprobs
        logprobs = None
        if sampled is not None:
            logprobs = [row[: len(ids)] for row, ids in zip(sampled, token_ids, strict=True)]
        return Answers(asked, token_ids, self.texts(token_ids), np.asarray(completions.finished, bool), logprobs)

    def texts(self, token_ids: list[list[int]]) -> list[str]:
        """What completions say, up to their stop strings."""
        return [self._stops.text(ids) for ids in token_ids]

    def score(self, answers: Answers, completed: int) -> Scores:
        """The rewards of every row of this process, written by a model of `completed` training steps."""
        self._extend(self._rewards.longest_seconds())
        return self._rewards.score(rows_of(answers.questions, answers.texts, answers.token_ids, completed))


def rows_of(questions: Sequence[Question], texts: list[str], token_ids: list[list[int]], completed: int) -> Rows:
    """What reward functions see; a column that a row lacks is None there."""
    names = dict.fromkeys(name for question in questions for name in question.columns)
    columns = {name: [question.columns.get(name) for question in questions] for name in names}
    return Rows([question.prompt for question in questions], texts, token_ids, columns, completed)


def prompt_bucket(questions: Sequence[Question], longest: int, usual: int = 0) -> int:
    """The padded length for these prompts, or for `usual` tokens if that is more: each length is compiled once.

    All processes know all questions, and so agree without asking.
    """
    return bucket(max(usual, *(len(question.token_ids) for question in questions)), longest)
