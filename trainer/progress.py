"""How far a run is: a ledger for the process that watches over this one, and a line for people after each step."""

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from trainer.contract.exits import Cause

ENV_LEDGER = "GRPO_LEDGER_FD"
"""The number of an open file that the supervisor hands to the trainer it starts."""

_LEDGER_BYTES = 16384
_STEPS_FOR_PACE = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """`step` is the last completed step, None before the first; `doing` tells what is under way, for people; `cause`
    stands there once the trainer knows its end.
    """

    process: int = 0
    processes: int = 1
    step: int | None = None
    doing: str = ""
    cause: Cause | None = None


class Ledger:
    """One entry, overwritten in place, in a file that survives the trainer however it dies.

    Nobody has to read while it is written, as a pipe would need. Without a file (`descriptor` None) nothing is kept.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self.entry = Entry()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Ledger":
        number = environ.get(ENV_LEDGER)
        return cls(int(number) if number else None)

    def write(self, entry: Entry) -> None:
        self.entry = entry
        if self._descriptor is None:
            return
        body = asdict(entry) | {"cause": entry.cause.to_json() if entry.cause else None}
        # One write of a fixed size: a trainer that is killed in the middle leaves the old entry or the new one.
        os.pwrite(self._descriptor, json.dumps(body).encode().ljust(_LEDGER_BYTES), 0)

    @staticmethod
    def read(descriptor: int) -> Entry:
        raw = os.pread(descriptor, _LEDGER_BYTES, 0).strip()
        if not raw:
            return Entry()
        body = json.loads(raw)
        cause = Cause.from_json(body["cause"]) if body["cause"] else None
        return Entry(body["process"], body["processes"], body["step"], body["doing"], cause)


class Pace:
    """Seconds per step, over the last ten; the first step compiles, and is left out once there are more."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_STEPS_FOR_PACE)
        self._first = True

    def add(self, seconds: float) -> None:
        if len(self._seconds) == 1 and self._first:
            self._seconds.clear()
            self._first = False
        self._seconds.append(seconds)

    def remaining_seconds(self, steps: int) -> float | None:
        """None before the first step."""
        return sum(self._seconds) / len(self._seconds) * steps if self._seconds else None


def clock(seconds: float | None) -> str:
    """`1:02:05`, or `–` where it is not known."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@dataclass(frozen=True, slots=True)
class StepShown:
    """One training step for people: its row of metrics, the names of the rewards, and what is left."""

    row: Mapping[str, float]
    steps: int
    rewards: tuple[str, ...]
    remaining_seconds: float | None

    @property
    def step(self) -> int:
        return int(self.row["step"])

    @property
    def reward(self) -> str:
        return f"reward {self.row['reward/total/mean']:.3f}"

    @property
    def speed(self) -> str:
        return f"{self.row['throughput/completion_tokens_per_s']:,.0f} tok/s"

    @property
    def eta(self) -> str:
        return f"ETA {clock(self.remaining_seconds)}"

    def line(self) -> str:
        """All of it in one line, as logs keep it."""
        return " | ".join([*self._parts(), self.eta])

    def fitting(self, width: int) -> str:
        """All of it where `width` columns hold that, else the numbers that matter most; without what is left."""
        whole = " | ".join(self._parts())
        return whole if len(whole) <= width else " | ".join(self._parts(short=True))

    def _parts(self, *, short: bool = False) -> list[str]:
        row = self.row
        parts = ", ".join(f"{name} {row[f'reward/{name}/mean']:.3f}" for name in self.rewards)
        phases = ", ".join(f"{name} {row[f'time/{name}_s']:.1f}" for name in ("rollout", "rewards", "update"))
        return [
            f"step {self.step}/{self.steps}",
            self.reward if short else f"{self.reward} ({parts})",
            *([f"{row['reward/unscorable']:.0f} unscorable"] if row["reward/unscorable"] else []),
            f"loss {row['update/loss']:+.4f}",
            *([] if short else [f"grad {row['update/grad_norm']:.3f}"]),
            f"length {row['length/completion/mean']:.0f}",
            self.speed,
            f"{row['time/step_s']:.1f} s" if short else f"{row['time/step_s']:.1f} s ({phases})",
        ]


def evaluation_line(row: Mapping[str, float], step: int, rewards: tuple[str, ...], seconds: float) -> str:
    """One evaluation in one line, from its metrics."""
    parts = ", ".join(f"{name} {row[f'eval/reward/{name}/mean']:.3f}" for name in rewards)
    told = [f"reward {row['eval/reward/total/mean']:.3f} ({parts}) on {row['eval/questions']:.0f} questions"]
    told += [f"{name.removeprefix('eval/')} {row[name]:.3f}" for name in row if "@" in name]
    unscorable = f" | {row['eval/reward/unscorable']:.0f} unscorable" if row["eval/reward/unscorable"] else ""
    return f"evaluation after step {step} | {', '.join(told)}{unscorable} | {seconds:.1f} s"


class Stopwatch:
    """Seconds of each phase of one step; those of a phase entered twice add up. `entered` is told each phase."""

    def __init__(
        self, now: Callable[[], float] = time.perf_counter, entered: Callable[[str], None] = lambda _phase: None
    ) -> None:
        self._now, self._entered = now, entered
        self._started = now()
        self.seconds = dict.fromkeys(("rollout", "rewards", "update"), 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = self._now()
        self._entered(name)
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - begun

    @property
    def total(self) -> float:
        return self._now() - self._started


def completions_lines(records: Sequence[Mapping[str, Any]], step: int) -> str:
    """A few completions with their rewards, each on two lines."""
    lines = [completions_title(records, step) + ":"]
    for record in chosen(records):
        rewards = "  ".join(f"{name} {short(value)}" for name, value in record["rewards"].items())
        cut = "" if record["finished"] else ", cut off"
        lines.append(f"  reward {short(record['total'])}  {rewards}  ({record['tokens']} tokens{cut})")
        lines.append(f"    {one_line(record['prompt'], 70)} → {one_line(record['completion'], 160)}")
    return "\n".join(lines)


def completions_title(records: Sequence[Mapping[str, Any]], step: int) -> str:
    return f"completions of step {step}, best to worst of {len(records)}"


def chosen(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The best, the worst and the one between."""
    ranked = sorted(records, key=lambda record: -math.inf if record["total"] is None else record["total"], reverse=True)
    return [ranked[index] for index in sorted({0, len(ranked) // 2, len(ranked) - 1})]


def short(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def one_line(text: str, width: int) -> str:
    """The end of a text: questions and answers both stand there. What could move a terminal's cursor is left out."""
    flat = "".join(letter if letter.isprintable() else "·" for letter in " ".join(text.split()))
    return flat if len(flat) <= width else "…" + flat[-width + 1 :]
