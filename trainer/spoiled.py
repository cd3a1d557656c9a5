"""Steps whose loss or gradient was not finite: the batch is kept for inspection, and the run ends or goes on.

In: a step's metrics and rows. Out: a file of the run folder, a warning or a RunError. It refuses to know the update,
which has already left such a step out.
"""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.experience import Experience
from trainer.metrics import Row
from trainer.trainbatch import TrainRow

log = logging.getLogger("trainer")

Rows = Callable[[Experience], list[TrainRow]]

MOST_IN_A_ROW = 10
"""Skipped steps after which a run ends: weights that give nothing finite any more will not come back."""


class SpoiledSteps:
    """Watches the steps of one attempt. Every process sees the same metrics, and so decides the same."""

    def __init__(self, process: ProcessConfig) -> None:
        self._process = process
        self._in_a_row = 0

    def check(self, step: int, measured: Row, found: Experience, rows: Rows) -> None:
        """Raises RunError NON_FINITE, unless the run skips such steps and has not skipped too many of them."""
        if measured["update/finite"]:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        path = self._save(step, found, rows(found))
        run = self._process.run
        text = (
            f"step {step}: loss {measured['update/loss']:g}, gradient norm {measured['update/grad_norm']:g}; the step "
            f"was not applied, its batch is in {path}"
        )
        if run.algorithm.on_non_finite == "Skip" and self._in_a_row < MOST_IN_A_ROW:
            log.warning("%s; skipped, as train.on_non_finite asks", text)
            return
        many = f"; {self._in_a_row} such steps in a row" if self._in_a_row > 1 else ""
        fix = f"lower optimizer.learning_rate ({run.optimizer.learning_rate:g})"
        raise RunError(ExitCode.NON_FINITE, f"{text}{many}; {fix}", agreed=True)

    def _save(self, step: int, found: Experience, rows: list[TrainRow]) -> str:
        """One JSON line for each row of this process: prompt and completion as ids and text, reward, advantage."""
        folder = Path(self._process.folder.non_finite) / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"process-{self._process.process_index}.jsonl"
        asked = [
            (q.text, text)
            for answers in found.answers
            for q, text in zip(answers.questions, answers.texts, strict=True)
        ]
        lines = [
            json.dumps(
                {
                    "prompt": prompt,
                    "completion": text,
                    "prompt_ids": list(row.prompt),
                    "completion_ids": list(row.completion),
                    "reward": _number(total),
                    "advantage": _number(row.advantage),
                    "trained": row.trained,
                }
            )
            for (prompt, text), row, total in zip(asked, rows, found.totals.tolist(), strict=True)
        ]
        path.write_text("".join(line + "\n" for line in lines))
        return self._process.folder.told(str(path))


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
