"""Numbers as people and models write them: text comes in, an exact fraction goes out."""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 1000
"""A longer string of digits is no answer; and Python refuses to read more than 4300 of them."""

_SCALES = {"thousand": 1000, "million": 1000**2, "billion": 1000**3}
_GROUPS = (
    r"\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d{1,3}(?:[\u00a0\u2009\u202f_']\d{3})+(?!\d)"  # 1,200 and 12,00,000; 1 200
)
_DIGITS = rf"(?:{_GROUPS}|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]}.])[-+])?"  # a minus after a word or a bracket subtracts
    rf"(?:(?P<whole>\d+) +(?P<part>\d+)/(?P<parts>\d+)|(?P<size>{_DIGITS})"
    r"(?P<exponent>[eE][-+]?\d{1,2}(?!\w))?"
    r"(?: ?/ ?(?P<below>\d+))?)"
    rf"(?: ?(?P<percent>%)| (?P<scale>{'|'.join(_SCALES)})\b)?",
    re.IGNORECASE,
)
_SPACED = re.compile(r"(?P<sign>[-+]?)\d{1,3}(?: \d{3})+(?:\.\d+)?")
_LATEX_FRACTION = re.compile(r"(-?)\\[dt]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_NOISE = (
    (re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}\d]*\}"), " "),
    (re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\circ\b|\\degree\b|°"), " "),
    (re.compile(r"(\b(?:mm|cm|m|km|in|inches|ft|feet|yd|mi|units?))\s*(?:\^\{?[23]\}?(?!\d)|[²³])"), r"\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,!; ]|\\(?:left|right)\b"), ""),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\?\$|[€£¥₹]|\\[()\[\]]"), ""),
    (re.compile("[\N{MINUS SIGN}\N{EN DASH}\N{FULLWIDTH HYPHEN-MINUS}]"), "-"),
)
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")


@dataclass(frozen=True, slots=True)
class Number:
    """`value` is what stands there, 50 for `50%`; `percent` tells of the sign behind it."""

    value: Fraction
    percent: bool = False


def plain(text: str) -> str:
    """Without currency, degrees and the LaTeX that only dresses a number: `$1{,}200` becomes `1,200`."""
    for pattern, replacement in _NOISE:
        text = pattern.sub(replacement, text)
    text = _VULGAR.sub(_spelled, text)
    return _LATEX_FRACTION.sub(_written_out, text)


def _spelled(match: re.Match[str]) -> str:
    return " " + unicodedata.normalize("NFKC", match[0]).replace("\N{FRACTION SLASH}", "/")


def _written_out(match: re.Match[str]) -> str:
    outer, *parts = match.groups()
    above, below = (part for part in parts if part)
    sign = "-" if (outer == "-") != above.startswith("-") else ""
    return f"{sign}{above.lstrip('-')}/{below}"


def read_number(text: str) -> Number | None:
    """The number that the whole text is (`1,200`, `-5`, `$18.00`, `1/2`, `1 1/2`, `50%`, `3 million`), or None."""
    text = re.sub(r"^([-+]) +", r"\1", plain(text).strip().strip("*_`").rstrip(".").strip())
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    if _SPACED.fullmatch(text) and len(text) <= MAX_DIGITS:
        return Number(Fraction(text.replace(" ", "")))
    match = _NUMBER.fullmatch(text)
    return _value(match) if match else None


def numbers_in(text: str) -> list[Number]:
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


def _value(match: re.Match[str]) -> Number | None:
    below = int((match["below"] or match["parts"] or "1")[:MAX_DIGITS])
    if match.end() - match.start() > MAX_DIGITS or below == 0:
        return None
    if match["whole"]:
        value = int(match["whole"]) + Fraction(int(match["part"]), below)
    else:
        digits = re.sub(r"[^\d.]", "", match["size"])
        value = Fraction(digits + (match["exponent"] or "")) / below
    value *= _SCALES.get((match["scale"] or "").lower(), 1)
    return Number(-value if (match["sign"] or "").startswith("-") else value, bool(match["percent"]))
