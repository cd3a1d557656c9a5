"""A run of Weights & Biases, of our run id, told as it goes or kept on disk for `wandb sync`.

Its server keeps what it was told first: a step that is made again is not told again. What is kept on disk is written
anew by each attempt, because a kill loses what `wandb` has in memory.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.contract.process import ProcessConfig

log = logging.getLogger("trainer")

REACHED_WITHIN_SECONDS = 30.0
"""For the server to answer as a run starts; after it, the run is kept on disk."""
FINISHED_WITHIN_SECONDS = 10.0
"""For the last rows to be sent: a run that was asked to stop has a grace period, and what is not sent is on disk."""


class WeightsAndBiases:
    """One run there, whichever attempt tells it."""

    def __init__(self, process: ProcessConfig) -> None:
        self._process = process
        self._folder = Path(process.folder.here) / "wandb"
        self._told = self._folder / "told-to-server"
        self._run: Any = None
        self._known = -1

    def begin(self, rows: Sequence[Mapping[str, float]]) -> None:
        self._run = self._start()
        if self._run.offline:
            # The server is not asked, so this is the only word on what it knows from attempts that reached it.
            self._known = int(self._told.read_text()) if self._told.exists() else -1
            rows = [] if self._forget_superseded() else rows
        for row in rows:
            self.write(row)

    def write(self, row: Mapping[str, float]) -> None:
        step = int(row["step"])
        if step <= self._known:
            return
        self._run.log({name: value for name, value in row.items() if name != "step"}, step=step, commit=True)
        if not self._run.offline:
            self._told.write_text(str(step))

    def close(self) -> None:
        self._run.finish()

    def _forget_superseded(self) -> bool:
        """Remove what earlier attempts kept, which this one writes anew; True where some of it was synced meanwhile."""
        earlier = [
            folder
            for folder in self._folder.glob(f"offline-run-*-{self._process.run_id}*")
            if folder.resolve() != Path(self._run.settings.sync_dir).resolve()
        ]
        synced = any(any(folder.glob("*.synced")) for folder in earlier)
        for folder in earlier:
            if not synced:
                shutil.rmtree(folder)
        return synced

    def _start(self) -> Any:
        """A run that is told as it goes, or one kept on disk where the server does not answer or knows no key."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its crash reports go to a third party otherwise
        import wandb

        try:
            return self._begun()
        except wandb.Error as error:
            reason = str(error).splitlines()[0]
            log.warning("Weights & Biases: %s; the run is kept in %s, for `wandb sync`", reason, self._folder)
            wandb.teardown()  # the attempt that failed holds the run's id
            return self._begun(mode="offline")

    def _begun(self, **more: Any) -> Any:
        import wandb

        run = self._process.run
        return wandb.init(
            project=run.wandb_project,
            name=run.wandb_name or run.name,
            id=self._process.run_id,
            resume="allow",
            dir=self._process.folder.here,
            config=json.loads(run.to_json()),
            settings=wandb.Settings(
                init_timeout=REACHED_WITHIN_SECONDS,
                finish_timeout=FINISHED_WITHIN_SECONDS,
                finish_timeout_raises=False,
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
            ),
            **more,
        )
