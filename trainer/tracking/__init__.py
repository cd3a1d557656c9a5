"""Curves elsewhere: rows of metrics come in, TensorBoard files and a run of Weights & Biases go out.

Both are extras, and neither may end a run: what cannot be reached is told once and left. It refuses to know what the
numbers mean. `metrics.jsonl` stays the record: an attempt begins by bringing its rows to where they are missing.
"""

import importlib.util
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.tracking.tensorboard import TensorBoard
from trainer.tracking.weightsandbiases import WeightsAndBiases

log = logging.getLogger("trainer")

Row = Mapping[str, float]


class Tracker(Protocol):
    """One place that shows curves."""

    def begin(self, rows: Sequence[Row]) -> None:
        """Start an attempt; `rows` are those of the steps that stand, in order, the last one told anew."""

    def write(self, row: Row) -> None:
        """Tell one row, of a later step than all before it."""

    def close(self) -> None: ...


def check_installed(process: ProcessConfig) -> None:
    """Raises RunError INPUT_NOT_REACHABLE where the run asks for Weights & Biases and its package is missing."""
    if process.run.wandb_project is not None and not _installed("wandb"):
        text = "wandb_project: the package wandb is missing; install grpo-operator[tracking], or leave it out"
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, text)


class Tracking:
    """All trackers of a run; one that fails is told once, and then left out."""

    def __init__(self, trackers: dict[str, Tracker]) -> None:
        self._trackers = trackers

    @classmethod
    def of(cls, process: ProcessConfig) -> "Tracking":
        """What this process tells: process 0 speaks for all."""
        trackers: dict[str, Tracker] = {}
        if process.process_index:
            return cls(trackers)
        if _installed("tensorboardX"):
            trackers["TensorBoard"] = TensorBoard(Path(process.folder.root) / "tensorboard")
        if process.run.wandb_project is not None:
            trackers["Weights & Biases"] = WeightsAndBiases(process)
        return cls(trackers)

    def begin(self, rows: Sequence[Row]) -> None:
        """Start this attempt with the rows that stand in `metrics.jsonl`, up to the step it goes on from."""
        self._each(lambda tracker: tracker.begin([_finite(row) for row in rows]))

    def write(self, row: Row) -> None:
        """Tell one row; numbers that are not finite are left out."""
        self._each(lambda tracker: tracker.write(_finite(row)))

    def close(self) -> None:
        for tracker in self._trackers.values():
            with suppress(Exception):
                tracker.close()

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                tell(tracker)
            except Exception as error:
                del self._trackers[name]
                log.warning("%s: %s; the run goes on without it", name, error)


def _finite(row: Mapping[str, float | None]) -> Row:
    return {name: value for name, value in row.items() if value is not None and math.isfinite(value)}


def _installed(package: str) -> bool:
    """A folder of that name, as `wandb` leaves one in the working directory, is no package."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None
