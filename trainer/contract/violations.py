"""A broken rule as a value: path, value, rule, fix; and the two spellings in which a path can be told."""

from dataclasses import dataclass
from enum import Enum
from typing import Any


def to_camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


class Spelling(Enum):
    """How the user wrote the tree: a runner YAML (`rollout.batch_size`) or a GRPOJob (`spec.rollout.batchSize`)."""

    RUNNER = "runner"
    GRPOJOB = "grpojob"

    def path(self, dotted: str) -> str:
        """The full path of a field of the runner's tree, given in snake_case: `rollout.batch_size`."""
        if self is Spelling.RUNNER:
            return dotted
        return "spec." + ".".join(to_camel(part) for part in dotted.split("."))

    def name(self, field: str) -> str:
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
