"""Exit codes of the trainer: what a supervisor, a JobSet and the controller read from a finished process."""

import json
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """One class of ending each; the JobSet fails at once on `FATAL`, and restarts on the others."""

    DONE = 0
    FAILED = 1
    INVALID_CONFIG = 2
    CONTRACT_VERSION = 3
    PLAN_DIFFERS = 4
    INPUT_NOT_REACHABLE = 5
    OUT_OF_MEMORY = 6
    NON_FINITE = 7
    STALLED = 8
    PEER_LOST = 9
    PREEMPTED = 10


FATAL = (
    ExitCode.INVALID_CONFIG,
    ExitCode.CONTRACT_VERSION,
    ExitCode.PLAN_DIFFERS,
    ExitCode.INPUT_NOT_REACHABLE,
    ExitCode.NON_FINITE,
)
"""Codes that a restart cannot heal; all processes of a run agree on them."""

MAX_TERMINATION_BYTES = 4096
"""The kubelet reads no more of a termination message."""


class RunError(Exception):
    """An ending that the trainer can explain. `message` is what a user reads; the user's own faults as *path: value,
    rule, fix*. `agreed`: every process of the run raises it, and so none has to be told by dying.
    """

    def __init__(self, code: ExitCode, message: str, *, agreed: bool = False):
        super().__init__(message)
        self.code = code
        self.message = message
        self.agreed = agreed


class NotReachableError(OSError):
    """What a run needs from elsewhere cannot be had. `permanent`: asking again will not help."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


@dataclass(frozen=True, slots=True)
class Cause:
    """Why one process ended, as it stands in the termination log: one JSON object.

    `step` is the last completed step, None before the loop; `exception` is the type's name, None where none was raised.
    """

    code: ExitCode
    process: int
    step: int | None
    exception: str | None
    message: str

    @property
    def name(self) -> str:
        """`OUT_OF_MEMORY` is told as `OutOfMemory`, like a condition's reason."""
        return "".join(word.capitalize() for word in self.code.name.split("_"))

    def to_json(self) -> str:
        """At most `MAX_TERMINATION_BYTES` long: the end of the message is cut."""
        message = self.message
        while True:
            body = {
                "class": self.name,
                "code": int(self.code),
                "process": self.process,
                "step": self.step,
                "exception": self.exception,
                "message": message,
            }
            text = json.dumps(body, ensure_ascii=False)
            if (excess := len(text.encode()) - MAX_TERMINATION_BYTES) <= 0 or not message:
                return text
            message = message[: max(0, len(message) - excess)]

    @classmethod
    def from_json(cls, text: str) -> "Cause":
        body = json.loads(text)
        return cls(ExitCode(body["code"]), body["process"], body["step"], body["exception"], body["message"])
