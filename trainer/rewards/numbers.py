"""Numbers as people and models write them: text comes in, an exact fraction goes out."""

import re
from fractions import Fraction

MAX_DIGITS = 1000
"""A longer string of digits is no answer; and Python refuses to read more than 4300 of them."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]}.])[-+])?"  # a minus after a word or a bracket subtracts
    rf"(?P<size>{_DIGITS})"
    r"(?P<exponent>[eE][-+]?\d{1,2}(?!\w))?"
    r"(?:/(?P<below>\d+))?"
)
_MIXED = re.compile(r"(?P<sign>[-+]?)(?P<whole>\d+) +(?P<above>\d+)/(?P<below>\d+)")
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_NOISE = (
    (re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,!; ]"), ""),
    (re.compile(r"\\?[$%]|[€£¥]|\\[()\[\]]"), ""),
    (re.compile("[\N{MINUS SIGN}\N{EN DASH}]"), "-"),
    (re.compile("[\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}]"), " "),
)


def plain(text: str) -> str:
    """Without currency, percent signs and the LaTeX that only dresses a number: `$1{,}200` becomes `1,200`."""
    for pattern, replacement in _NOISE:
        text = pattern.sub(replacement, text)
    return _LATEX_FRACTION.sub(lambda match: "/".join(part for part in match.groups() if part), text)


def read_number(text: str) -> Fraction | None:
    """The number that the whole text is (`1,200`, `-5`, `$18.00`, `1/2`, `1 1/2`), or None."""
    text = plain(text).strip().rstrip(".")
    if match := _MIXED.fullmatch(text):
        return _mixed(match)
    match = _NUMBER.fullmatch(text)
    return _value(match) if match else None


def numbers_in(text: str) -> list[Fraction]:
    """Every number in a text, in order; `10-5` holds 10 and 5."""
    values = (_value(match) for match in _NUMBER.finditer(plain(text)))
    return [value for value in values if value is not None]


def is_decimal(value: Fraction) -> bool:
    """Whether the number ends when written out: 1/8 does, 1/3 does not."""
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below == 1


def _value(match: re.Match[str]) -> Fraction | None:
    if match.end() - match.start() > MAX_DIGITS:
        return None
    below = int(match["below"] or 1)
    if below == 0:
        return None
    value = Fraction(match["size"].replace(",", "") + (match["exponent"] or "")) / below
    return -value if match["sign"] == "-" else value


def _mixed(match: re.Match[str]) -> Fraction | None:
    if match.end() - match.start() > MAX_DIGITS or int(match["below"]) == 0:
        return None
    value = int(match["whole"]) + Fraction(int(match["above"]), int(match["below"]))
    return -value if match["sign"] == "-" else value
