"""Where the answer stands: a completion or a gold text comes in, the part that is compared goes out."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from trainer.rewards.numbers import is_decimal, numbers_in, plain, read_number

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_EXPRESSION = re.compile(r"\\[A-Za-z]|\^|[\d)]\s*[*+/-]\s*[\d(\\]|\d\(")


@dataclass(frozen=True, slots=True)
class Answer:
    """`marked` tells that the text said where its answer is: tags, a box, or `####`."""

    text: str
    marked: bool


def answer_in(text: str) -> Answer:
    """The last `<answer>`, else the last `boxed{}`, else what follows the last `####`, else the whole text."""
    tagged = _between(text, "<answer>", "</answer>")
    inside = text if tagged is None else tagged
    boxed = _last_box(inside)
    if boxed is not None:
        return Answer(boxed.strip(), True)
    if tagged is not None:
        return Answer(tagged.strip(), True)
    _, hashes, after = text.rpartition("####")
    return Answer(after.strip(), True) if hashes else Answer(text.strip(), False)


def gold_text(value: Any) -> str | None:
    """A row's answer field as text: GSM8K's is what follows `####`. None where the row has none."""
    if value is None:
        return None
    return answer_in(str(value)).text or None


def judged_by_number(gold: str, answer: Answer) -> bool | None:
    """Whether answer and gold are the same number, or None where numbers alone cannot tell.

    An unmarked answer is the last number of the text; so is a marked one that is prose around a number. Of an equation
    the right side counts.
    """
    expected = read_number(gold)
    if expected is None:
        return None
    text = answer.text.rpartition("=")[2] if answer.marked else answer.text
    found = read_number(text)
    if found is None and answer.marked and _EXPRESSION.search(plain(text)):
        return None
    if found is None:
        found = next(reversed(numbers_in(text)), None)
    return False if found is None else _same(expected, found)


def same_words(gold: str, answer: Answer) -> bool:
    """Whether the answer is the gold text but for case, spaces and a final stop."""
    return _words(gold) == _words(answer.text)


def vote_of(text: str) -> str | None:
    """What a completion answers, written so that equal answers are equal text; None where it answers nothing."""
    answer = answer_in(text)
    number = read_number(answer.text.rpartition("=")[2] if answer.marked else answer.text)
    if number is None and not (answer.marked and _EXPRESSION.search(plain(answer.text))):
        number = next(reversed(numbers_in(answer.text)), None)
    return str(number) if number is not None else _words(answer.text) or None


def _same(expected: Fraction, found: Fraction) -> bool | None:
    """None where one of them is cut short when written out: 1/3 against 0.3333 is a matter of rounding."""
    if expected == found:
        return True
    return False if is_decimal(expected) and is_decimal(found) else None


def _words(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _between(text: str, start: str, end: str) -> str | None:
    last = text.rfind(start)
    if last < 0:
        return None
    inside = text[last + len(start) :]
    stop = inside.find(end)
    return inside[:stop] if stop >= 0 else None


def _last_box(text: str) -> str | None:
    """The content of the last box whose braces close."""
    for match in reversed(list(_BOXED.finditer(text))):
        depth = 1
        for position in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[match.end() : position]
    return None
