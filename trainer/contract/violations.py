"""A broken rule as a value: path, value, rule, fix; and the two spellings in which a path can be told.

In: nothing. Out: the words that every other module of the contract speaks in. Refuses to know any rule.
"""

import json
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

SHOWN = 60


def to_camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


class Spelling(Enum):
    """How the user wrote the tree: a runner YAML (`rollout.batch_size`) or a GRPOJob (`spec.rollout.batchSize`)."""

    RUNNER = "runner"
    GRPOJOB = "grpojob"

    def path(self, dotted: str) -> str:
        """The full path of a field of the runner's tree, given in snake_case: `rollout.batch_size`; "" is the root."""
        if self is Spelling.RUNNER:
            return dotted
        return ".".join(("spec", *(to_camel(part) for part in dotted.split(".") if part)))

    def name(self, field: str) -> str:  # type: ignore[override]
        """The last part of a field's path, as it stands inside a sentence: `num_pre_q` or `numPreQ`."""
        return field if self is Spelling.RUNNER else to_camel(field)


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule, or one warning. `message` holds value, rule and fix; the line a user reads is `str()`."""

    rule: str
    path: str
    value: Any
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def as_dict(self) -> dict[str, Any]:
        return {"rule": self.rule, "path": self.path, "value": self.value, "message": self.message}

    def with_fix(self, fix: str) -> "Violation":
        """The same violation with another fix: what stands behind the first semicolon of its message."""
        return replace(self, message=f"{self.message.partition('; ')[0]}; {fix}")


def shown(value: Any) -> str:
    """A value as one short line of ASCII: text in quotes, the rest as JSON, cut in the middle where it is long."""
    try:
        text = json.dumps(value, default=str)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(type(value).__name__)
    if len(text) <= SHOWN:
        return text
    half = SHOWN // 2 - 2
    return f"{text[:half]} .. {text[-half:]}"


def use(values: "tuple[int, ...] | list[int]") -> str:
    """The fix that names one or two numbers: `use 96 or 104`."""
    return "use " + " or ".join(str(value) for value in values)


def counted(number: int | None, noun: str, plural: str = "s") -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{number} {noun}{plural if number != 1 else ''}"
