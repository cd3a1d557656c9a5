"""When a checkpoint is due: after so many steps or minutes, and when an evaluation went better than any before.

In: what a step measured. Out: yes or no, the same on all processes. It refuses to know how a checkpoint is made.
"""

import math
import time
from collections.abc import Callable

import numpy as np

from trainer.contract.runner import CheckpointConfig
from trainer.distributed import gather


class Cadence:
    """The `checkpoint` section of a run, and the time of the last save. The clock of process 0 counts for all."""

    def __init__(self, config: CheckpointConfig, now: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._now = now
        self._saved_at = now()

    def saved(self) -> None:
        self._saved_at = self._now()

    def is_due(self, step: int, score: float | None, best_so_far: float) -> bool:
        """`score` is the metric of `checkpoint.best`, None where the step was not evaluated."""
        every = self._config.every_steps
        if every and step % every == 0:
            return True
        if score is not None and score > best_so_far:
            return True
        if not self._config.every_minutes:
            return False
        due = self._now() - self._saved_at >= 60 * self._config.every_minutes
        return bool(gather(np.array(due))[0])

    def score_of(self, row: dict[str, float]) -> float | None:
        """The metric of `checkpoint.best` in a row; None where it has none, or one that is not a number."""
        score = row.get(self._config.best or "", math.nan)
        return score if math.isfinite(score) else None
