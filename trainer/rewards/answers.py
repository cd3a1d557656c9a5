"""Where the answer stands: a completion or a gold text comes in, the part that is compared goes out."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from trainer.rewards.numbers import Number, is_decimal, numbers_in, plain, read_number

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_SAID = re.compile(r"\banswer\**(?: is|:)[\s:*]*((?:[^.\n]|\.(?=\d))*\d(?:[^.\n]|\.(?=\d))*)", re.IGNORECASE)
"""A sentence that says the answer, and holds a digit: `The answer is 5.`"""
_REMARK = re.compile(r"(?<=\d) +\([^()]*\)")
_WITH_UNIT = re.compile(r"[-+]?[\d,./ ]*\d[\d,./]*%?(?: (?!pi\b)[A-Za-z]{2,}[A-Za-z/ .]*)")
_UNWRAPPED = re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf)\s*\{([^{}]*)\}")
_EXPRESSION = re.compile(r"\\[A-Za-z]|\^|[\d)]\s*[*+/-]\s*[\d(\\]|\d\(")


@dataclass(frozen=True, slots=True)
class Answer:
    """`marked` tells that the text said where its answer is: tags, a box, or `####`."""

    text: str
    marked: bool


def answer_in(text: str) -> Answer:
    """The last `<answer>`, else the last `boxed{}`, else what follows the last `####`.

    Without any of these nothing is marked: the last sentence that says `the answer is …` a number, else the whole text.
    """
    tagged = _between(text, "<answer>", "</answer>")
    inside = text if tagged is None else tagged
    boxed = _last_box(inside)
    if boxed is not None:
        return Answer(boxed.strip(), True)
    if tagged is not None:
        return Answer(tagged.strip(), True)
    _, hashes, after = text.rpartition("####")
    if hashes:
        return Answer(after.strip(), True)
    said = _SAID.findall(text)
    return Answer(_REMARK.sub("", said[-1]).strip(), False) if said else Answer(text.strip(), False)


def gold_text(value: Any) -> str | None:
    """A row's answer field as text: GSM8K's is what follows `####`. None where the row has none."""
    if value is None:
        return None
    return answer_in(str(value)).text or None


def judged_by_number(gold: str, answer: Answer) -> bool | None:
    """Whether answer and gold are the same number, or None where numbers alone cannot tell.

    An unmarked answer is the last number of the text; so is a marked one that is prose around a number. Of an equation
    the right side counts. A gold number may have its unit behind it (`18 apples`).
    """
    expected = _gold_number(gold)
    if expected is None:
        return None
    text = _right_side(answer)
    found = read_number(text)
    if found is None and answer.marked and _is_expression(text):
        return None
    if found is None:
        found = next(reversed(numbers_in(text)), None)
    return False if found is None else _same(expected, found)


def same_words(gold: str, answer: Answer) -> bool:
    """Whether the answer is the gold text but for case, spaces, brackets around it and a final stop."""
    return _words(gold) == _words(answer.text)


def vote_of(text: str) -> str | None:
    """What a completion answers, written so that equal answers are equal text; None where it answers nothing."""
    answer = answer_in(text)
    side = _right_side(answer)
    number = read_number(side)
    if number is None and not (answer.marked and _is_expression(side)):
        number = next(reversed(numbers_in(side)), None)
    return str(number.value) if number is not None else _words(answer.text) or None


def _right_side(answer: Answer) -> str:
    return answer.text.rpartition("=")[2] if answer.marked else answer.text


def _is_expression(text: str) -> bool:
    return _EXPRESSION.search(plain(text)) is not None


def _gold_number(gold: str) -> Number | None:
    number = read_number(gold)
    if number is None and _WITH_UNIT.fullmatch(plain(gold).strip()):
        number = numbers_in(gold)[0] if numbers_in(gold) else None
    return number


def _same(expected: Number, found: Number) -> bool | None:
    """None where one of them is cut short when written out: 1/3 against 0.3333 is a matter of rounding.

    `50%` is 50 to someone who asked for a percentage, and 0.5 to someone who asked for a share.
    """
    if expected.value == found.value:
        return True
    if expected.percent != found.percent and expected.value == found.value * (
        Fraction(1, 100) if found.percent else 100
    ):
        return True
    return False if is_decimal(expected.value) and is_decimal(found.value) else None


def _words(text: str) -> str:
    words = " ".join(_UNWRAPPED.sub(r"\1", text).casefold().split()).strip("*_`$").rstrip(".")
    return words[1:-1].strip() if words[:1] == "(" and words[-1:] == ")" else words


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
