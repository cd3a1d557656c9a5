"""Exit codes of the trainer: what a supervisor, a JobSet and the controller read from a finished process."""

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
