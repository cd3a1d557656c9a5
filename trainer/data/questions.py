"""Questions ready to ask: rows with their prompt as text and as token ids, none longer than the prompt bucket."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trainer.contract.runner import DataConfig
from trainer.data.hub import HubFile
from trainer.data.prompts import Prompt, PromptWriter, missing_field, text_of, tokenize
from trainer.data.rows import DataError, Row, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Question:
    """`columns` are the row's, for the rewards; `prompt` is the user's turn, or a conversation, before any template."""

    prompt: Prompt
    token_ids: tuple[int, ...]
    columns: dict[str, Any]

    @property
    def text(self) -> str:
        """The prompt as people are shown it."""
        return text_of(self.prompt)


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """All questions of a data set in file order. `dropped` and `truncated` count its overlong prompts."""

    source: str
    questions: tuple[Question, ...]
    dropped: int
    truncated: int

    def __len__(self) -> int:
        return len(self.questions)

    def usual_longest(self, count: int) -> int:
        """Tokens that the longest prompt of `count` stays within in 19 steps of 20."""
        return usual_longest([len(question.token_ids) for question in self.questions], count)

    @property
    def digest(self) -> str:
        """SHA-256 over the prompts' ids: the same order over other questions would be another run."""
        hashed = hashlib.sha256()
        for question in self.questions:
            hashed.update(repr(question.token_ids).encode())
        return hashed.hexdigest()

    @property
    def summary(self) -> str:
        counts = ((self.dropped, "dropped as overlong"), (self.truncated, "cut to the prompt length"))
        told = "".join(f", {count} {what}" for count, what in counts if count)
        return f"{len(self)} questions from {self.source}{told}"


def load_questions(
    role: Literal["train", "eval"],
    split: str,
    config: DataConfig,
    tokenizer: "PreTrainedTokenizerBase",
    longest: int,
    *,
    answers: bool,
    fetched: Sequence[HubFile] | None = None,
) -> QuestionSet:
    """Read, write and encode `data.train` or `data.eval`. Raises DataError.

    `longest` is rollout.global_length; with `answers`, every row must have the answer field; `fetched` are the files of
    a data set of the hub.
    """
    field, source = f"data.{role}", config.train if role == "train" else config.eval
    rows = read_rows(field, source, split, fetched)
    lacking = next((row for row in rows if config.answer_field not in row.columns), None)
    if answers and lacking is not None:
        raise DataError(missing_field(field, lacking, config.answer_field, "data.answer_field"))
    writer = PromptWriter(config)
    prompts = [writer.write(field, row) for row in rows]
    encoded = tokenize(tokenizer, config, prompts)
    return _fitted(field, source, config.overlong, longest, rows, prompts, encoded)


def _fitted(
    field: str,
    source: str,
    overlong: str,
    longest: int,
    rows: list[Row],
    prompts: list[Prompt],
    encoded: list[tuple[int, ...]],
) -> QuestionSet:
    too_long = [len(token_ids) > longest for token_ids in encoded]
    if overlong == "error" and any(too_long):
        row = too_long.index(True)
        raise DataError(
            f"{field}: {rows[row].place} has a prompt of {len(encoded[row])} tokens, and rollout.global_length is "
            f"{longest}; raise global_length, or set data.overlong to drop or truncate-left"
        )
    questions = tuple(
        Question(prompt, token_ids[-longest:], row.columns)
        for row, prompt, token_ids, long in zip(rows, prompts, encoded, too_long, strict=True)
        if not (long and overlong == "drop")
    )
    if not questions:
        shortest = min(len(token_ids) for token_ids in encoded)
        raise DataError(
            f"{field}: all {len(rows)} prompts of {source} are longer than rollout.global_length = {longest} tokens; "
            f"raise global_length (the shortest has {shortest})"
        )
    count = sum(too_long)
    return QuestionSet(source, questions, count if overlong == "drop" else 0, 0 if overlong == "drop" else count)


def usual_longest(lengths: Sequence[int], count: int) -> int:
    """What the largest of `count` lengths, drawn at random, stays within 19 times of 20."""
    return int(np.quantile(lengths, 0.95 ** (1 / count), method="higher"))
