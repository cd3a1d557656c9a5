"""What a run left in its folder, as plain data: the path of a folder comes in, a `Record` goes out.

Written with tolerance: a run that still goes on, one that was killed, and one of an older version have a record too.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.contract.exits import ExitCode, RunError
from trainer.contract.runfolder import RunFolder
from trainer.metrics import MetricsFile, Row

MOST_SAMPLES = 2000
"""Completions of training that a page holds; of more, the latest."""
EVALUATED_SHOWN = 64
"""Questions of an evaluation that a page holds: the first, which are the same in every evaluation."""
MOST_LETTERS = 4_000_000
"""Of these completions with their prompts, of training and of each evaluation: what a browser opens in a second."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion with its rewards. `evaluated`: of an evaluation after `step`, else sampled in that step."""

    step: int
    evaluated: bool
    prompt: str
    completion: str
    rewards: dict[str, float | None]
    total: float | None
    tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Record:
    """`config` and `plan` are the resolved ones as JSON objects; `left_out` counts completions that are not here."""

    folder: Path
    run_id: str
    finished: bool
    model_revision: str | None
    config: dict[str, Any]
    plan: dict[str, Any]
    metrics: list[Row]
    samples: list[Sample]
    left_out: int

    @property
    def label(self) -> str:
        return f"{self.config.get('name', 'run')}-{self.run_id[:8]}"

    @property
    def step(self) -> int:
        """The last completed step."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0


def read_record(folder: Path) -> Record:
    """Read a run folder. Raises RunError INVALID_CONFIG where it is none, naming the run folders below it."""
    files = RunFolder(str(folder))
    path = Path(files.run_json)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        config, run_id = dict(body["config"]), str(body["run_id"])
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            ExitCode.INVALID_CONFIG, f"{folder}: no run folder, it has no run.json; {_near(folder)}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(ExitCode.INVALID_CONFIG, f"{path}: cannot be read ({error}); name another run") from None
    training = list(_training(Path(files.completions)))
    latest = _fitting(reversed(training[-MOST_SAMPLES:]))[::-1]
    return Record(
        folder=folder,
        run_id=run_id,
        finished=bool(body.get("finished")),
        model_revision=body.get("model_revision"),
        config={name: value for name, value in config.items() if name != "batch"},
        plan=dict(config.get("batch", {})),
        metrics=MetricsFile(Path(files.metrics)).read(),
        samples=latest + list(_evaluated(Path(files.evaluations))),
        left_out=len(training) - len(latest),
    )


def _near(folder: Path) -> str:
    found = sorted(path.parent.name for path in folder.glob("*/run.json"))
    if not found:
        return "name the folder that a run printed as it started"
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f"it holds {', '.join(found[:5])}{more}: name one of them"


def _training(folder: Path) -> Iterator[Sample]:
    for path in sorted(folder.glob("step-*.jsonl")):
        for body in _lines(path):
            yield _sample(body, int(body.get("step", _step_of(path))), evaluated=False)


def _evaluated(folder: Path) -> Iterator[Sample]:
    """The first and the last evaluation, so that the same questions can be compared before and after."""
    folders = sorted(path for path in folder.glob("step-*") if path.is_dir())
    for chosen in dict.fromkeys([*folders[:1], *folders[-1:]]):
        bodies = [body for path in sorted(chosen.glob("process-*.jsonl")) for body in _lines(path)]
        bodies.sort(key=lambda body: int(body.get("question", 0)))
        shown = [body for body in bodies if int(body.get("question", 0)) < EVALUATED_SHOWN]
        yield from _fitting(_sample(body, _step_of(chosen), evaluated=True) for body in shown)


def _fitting(samples: Iterable[Sample]) -> list[Sample]:
    """The first, up to `MOST_LETTERS`, and one at least."""
    fitting: list[Sample] = []
    letters = 0
    for sample in samples:
        letters += len(sample.prompt) + len(sample.completion)
        if fitting and letters > MOST_LETTERS:
            break
        fitting.append(sample)
    return fitting


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    """The objects of a JSONL file; a line that a killed process cut short is left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _sample(body: dict[str, Any], step: int, *, evaluated: bool) -> Sample:
    return Sample(
        step=step,
        evaluated=evaluated,
        prompt=str(body.get("prompt", "")),
        completion=str(body.get("completion", "")),
        rewards=dict(body.get("rewards") or {}),
        total=body.get("total"),
        tokens=int(body.get("tokens") or 0),
        finished=bool(body.get("finished", True)),
    )
