"""TensorBoard's event files in the run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TensorBoard:
    """One file of events an attempt. What earlier ones told of steps that are made again is void (`purge_step`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def begin(self, rows: Sequence[Mapping[str, float]]) -> None:
        from tensorboardX import SummaryWriter

        last = int(rows[-1]["step"]) if rows else 0
        self._writer = SummaryWriter(str(self._folder), purge_step=last, filename_suffix=f".from-step-{last}")
        for row in rows[-1:]:
            self.write(row)

    def write(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
