"""Curves elsewhere: rows of metrics come in; TensorBoard files, a run of Weights & Biases and Prometheus text go out.

None may end a run: what cannot be reached is told once and left. It refuses to know what the
numbers mean. `metrics.jsonl` stays the record: an attempt begins by bringing its rows to where they are missing.
"""

import importlib.util
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.tracking.prometheus import ENV_PORT, Prometheus
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
    def of(cls, process: ProcessConfig, environ: Mapping[str, str] = os.environ) -> "Tracking":
        """What this process tells: process 0 speaks for all."""
        opening: dict[str, Callable[[], Tracker]] = {}
        if _installed("tensorboardX"):
            opening["TensorBoard"] = lambda: TensorBoard(Path(process.folder.here) / "tensorboard")
        if process.run.wandb_project is not None:
            opening["Weights & Biases"] = lambda: WeightsAndBiases(process)
        if environ.get(ENV_PORT):
            opening["Prometheus"] = lambda: Prometheus(process, environ[ENV_PORT])
        tracking = cls({})
        for name, tracker in opening.items() if process.process_index == 0 else ():
            with tracking._heard(name):
                tracking._trackers[name] = tracker()
        return tracking

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
            with self._heard(name):
                tell(tracker)

    @contextmanager
    def _heard(self, name: str) -> Iterator[None]:
        """An error is told once: whose it is, is left out from then on."""
        try:
            yield
        except Exception as error:
            self._trackers.pop(name, None)
            log.warning("%s: %s; the run goes on without it", name, error)


def _finite(row: Mapping[str, float | None]) -> Row:
    return {name: value for name, value in row.items() if value is not None and math.isfinite(value)}


def _installed(package: str) -> bool:
    """A folder of that name, as `wandb` leaves one in the working directory, is no package."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None
