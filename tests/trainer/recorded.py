"""Run folders for tests of what reads them, written by what writes them in a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launching import resolved

from trainer.contract.process import ProcessConfig
from trainer.metrics import MetricsFile
from trainer.outputs import Standing, write_run_json


def recorded(
    output: Path, run_id: str, rows: Sequence[Mapping[str, float]], samples: Mapping[int, Sequence[str]], *sets: str
) -> Path:
    """A folder with `rows` of metrics and, by step, completions whose reward is their place in the step."""
    run = resolved(Path("a/model"), Path("sums.jsonl"), output, 1, 2, *sets)
    process = ProcessConfig(run, run_id, 0, None, 0)
    folder = Path(process.folder.root)
    (folder / "completions").mkdir(parents=True)
    write_run_json(process, Standing(model_revision="0123abc"))
    metrics = MetricsFile(Path(process.folder.metrics))
    for row in rows:
        metrics.write(row)
    for step, texts in samples.items():
        lines = [json.dumps(sample(step, text, place)) + "\n" for place, text in enumerate(texts)]
        (folder / "completions" / f"step-{step:08d}.jsonl").write_text("".join(lines))
    return folder


def sample(step: int, text: str, reward: float | None) -> dict[str, Any]:
    """One line of a completions file."""
    return {
        "step": step,
        "prompt": "1 + 1 =",
        "completion": text,
        "rewards": {"letters": reward},
        "total": reward,
        "tokens": len(text),
        "finished": True,
    }
