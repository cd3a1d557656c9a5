"""What a run measured: rows of numbers come in, JSON lines of the run folder go out, one row a step.

Names are flat, `group/thing/statistic`, with the unit at the end where there is one (`time/rollout_s`).
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.contract.batch import BatchPlan
from trainer.grpo.advantages import differing

Row = dict[str, float]


class MetricsFile:
    """`metrics.jsonl`. Only one process writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Row]:
        """Rows in order of their step. A last line that a killed process cut short is left out."""
        rows: dict[int, Row] = {}
        text = self._path.read_text() if self._path.exists() else ""
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            rows[row["step"]] = row
        return [rows[step] for step in sorted(rows)]

    def keep_up_to(self, step: int) -> None:
        """Forget the rows of later steps, which will be made again."""
        if self._path.exists():
            self._rewrite(row for row in self.read() if row["step"] <= step)

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row."""
        with self._path.open("a") as file:
            file.write(_line(row))

    def replace(self, row: Mapping[str, float]) -> None:
        """Put a row in the place of that of its step, in one move: a killed process leaves the one or the other."""
        self._rewrite([*(kept for kept in self.read() if kept["step"] < row["step"]), row])

    def _rewrite(self, rows: Iterable[Mapping[str, float]]) -> None:
        replacement = self._path.with_suffix(".new")
        replacement.write_text("".join(map(_line, rows)))
        replacement.replace(self._path)


def _line(row: Mapping[str, float]) -> str:
    """Numbers that JSON cannot hold (NaN, infinity) become null."""
    return json.dumps({name: _or_null(value) for name, value in row.items()}) + "\n"


def _or_null(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def reward_row(
    names: tuple[str, ...], values: NDArray[np.float64], failed: NDArray[np.bool_], totals: NDArray[np.float64]
) -> Row:
    """Statistics over all rows that have a number: values[reward, row] unweighted, totals[row] weighted."""
    row: Row = {"reward/unscorable": int(np.isnan(totals).sum())}
    row |= statistics("reward/total", totals, "mean", "std", "min", "max")
    for name, given, fault in zip(names, values, failed, strict=True):
        row |= statistics(f"reward/{name}", given, "mean")
        row[f"reward/{name}/failed"] = int(fault.sum())
    return row


def statistics(name: str, values: NDArray[np.generic], *wanted: str) -> Row:
    """`name/mean` and so on, over the finite values; NaN where there are none. `std` is the population's."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    return {f"{name}/{what}": float(getattr(np, what)(numbers)) if numbers.size else math.nan for what in wanted}


def group_row(totals: NDArray[np.float64], group_size: int) -> Row:
    """How much groups differ in themselves, and the share of those that teach nothing, because all their rewards are
    equal; totals[row], group by group, NaN where unscorable.
    """
    groups = totals.reshape(-1, group_size)
    scored = np.isfinite(groups)
    spread = [np.std(group[known]) for group, known in zip(groups, scored, strict=True) if known.any()]
    return {
        "reward/equal_groups": float(np.mean(~differing(groups, scored))),
        "reward/group_std": float(np.mean(spread)) if spread else math.nan,
    }


def batch_row(plan: BatchPlan) -> Row:
    """The effective batch, which padding may have made larger than the one asked for."""
    return {
        "batch/sequences_per_step": plan.sequences_per_step,
        "batch/prompts_per_step": plan.prompts_per_step,
        "batch/group_size": plan.group_size,
        "batch/passes": plan.passes,
        "batch/micro_steps": plan.micro_steps,
        "batch/sequences_per_process": plan.sequences_per_process,
        "batch/processes": plan.processes,
        "batch/devices": plan.processes * plan.devices_per_process,
    }
