"""Equality of expressions by math-verify, in a process of its own: sympy can hang, and its timeouts need SIGALRM."""

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException

SECONDS_PER_STEP = 3
"""Longest reading of one expression, and longest comparison of one pair."""


def equal(prompts: list[str], completions: list[str], gold: list[str], **_: object) -> list[float | None]:
    """1.0 where a completion's expression equals its gold's, else 0.0; None where sympy gave up or ran out of time."""
    return [_judge(expected, found) for expected, found in zip(gold, completions, strict=True)]


def _judge(gold: str, answer: str) -> float | None:
    try:
        expected, found = _read(gold), _read(answer)
        same = verify(expected, found, timeout_seconds=SECONDS_PER_STEP, raise_on_error=True)
    except (Exception, TimeoutException):  # whatever sympy raises on a model's scribble; its timeout is no Exception
        return None
    return 1.0 if same else 0.0


def _read(text: str) -> list[object]:
    forms = [LatexExtractionConfig(), ExprExtractionConfig()]
    dressed = text if "$" in text or "\\boxed" in text else f"${text}$"
    return list(parse(dressed, forms, parsing_timeout=SECONDS_PER_STEP, raise_on_error=True))
