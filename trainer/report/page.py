"""One page of HTML: records of runs come in, text goes out that loads nothing from anywhere.

What a run wrote is shown as text, never as markup: the template escapes, and the page's own policy lets the browser
run no script but ours.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from trainer.metricnames import LOSS_NEAR_ZERO, metric_of
from trainer.report.charts import HEIGHT, LEFT, RIGHT, WIDTH, Points, chart_of, number
from trainer.report.record import Record

_PARTS = Path(__file__).parents[1] / "data"

ACCURACY = ("eval/pass@1", "eval/reward/correct/mean", "eval/reward/total/mean")
"""What tells best how good a model is, the best first."""
SECTIONS = (
    (
        "Learning",
        ("eval/pass@", "eval/maj@", "eval/reward/correct/mean", "reward/total/mean", "eval/reward/", "reward/"),
    ),
    (
        "Policy",
        (
            "update/kl_reference",
            "update/kl_old",
            "update/entropy",
            "update/loss",
            "update/grad_norm",
            "update/clip_share",
            "update/",
        ),
    ),
    ("Lengths", ("length/completion/mean", "length/truncated", "length/", "eval/length/", "finish/")),
    ("Evaluation", ("eval/",)),
    ("Speed", ("throughput/completion_tokens_per_s", "throughput/", "time/step_s", "padding/", "memory/")),
)
"""Charts in their order; a name that ends in `/` or `@` stands for all that begin so."""
_QUIET = ("/min", "/max", "/std", "/failed", "update/finite", "update/completion_tokens", "eval/questions")
_PHASES = ("rollout", "rewards", "update")


def page(records: Sequence[Record]) -> str:
    """The whole page about one run, or about several laid over one another."""
    script = _part("report.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = _breakable
    sections, rest = _sections(records)
    return environment.from_string(_part("report.html")).render(
        title=" and ".join(record.label for record in records),
        style=_part("report.css"),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        runs=[_head(record) for record in records],
        sections=sections,
        rest=rest,
        constant=[(name, value) for name in _names(records) if (value := _constant(name, records))],
        curves=_curves(records),
        frame={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT},
        times=[_times(record) for record in records],
        samples=[(run, sample) for run, record in enumerate(records) for sample in record.samples],
        reward_names=list(dict.fromkeys(name for r in records for sample in r.samples for name in sample.rewards)),
        steps=sorted({(s.step, s.evaluated) for r in records for s in r.samples}, key=lambda pair: (pair[1], pair[0])),
        left_out=[record.left_out for record in records],
        plan=_table([record.plan for record in records]),
        config=_table([record.config for record in records]),
    )


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after each of its words."""
    return Markup(re.sub("([/_.])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped


def _head(record: Record) -> dict[str, Any]:
    steps = record.config.get("steps", record.step)
    state = "finished" if record.finished else "not finished"
    seconds = _column(record, "time/step_s")
    rate = _column(record, "throughput/completion_tokens_per_s")
    rewards = _column(record, "reward/total/mean")
    best = next((name for name in ACCURACY if _column(record, name)), None)
    facts = [("state", f"{state}, step {record.step} of {steps}")]
    if best:
        values = _column(record, best)
        title = "accuracy, evaluated" if best != ACCURACY[-1] else "reward, evaluated"
        facts.append((title, _change(values)))
    if rewards:
        facts.append(("reward, training", _change(rewards)))
    if seconds:
        facts.append(("a step, median", f"{number(median(y for _, y in seconds))} s"))
    if rate:
        facts.append(("sampled, median", f"{number(median(y for _, y in rate))} tokens/s"))
    model = str(record.config.get("model_path", "")) + (f"@{record.model_revision}" if record.model_revision else "")
    return {"label": record.label, "folder": str(record.folder), "model": model, "facts": facts}


def _change(values: Points) -> str:
    """The first and the last value, or the only one."""
    ends = [number(y) for _, y in (values[0], values[-1])]
    return " → ".join(ends if len(values) > 1 else ends[:1])


def _column(record: Record, name: str) -> Points:
    """(step, value) of the rows that have a finite number under `name`."""
    values = [(row["step"], row.get(name)) for row in record.metrics]
    return [(float(step), float(value)) for step, value in values if value is not None and math.isfinite(value)]


def _names(records: Sequence[Record]) -> list[str]:
    names = dict.fromkeys(name for record in records for row in record.metrics for name in row)
    return [name for name in names if name not in ("step", "epoch") and not name.startswith("batch/")]


def _sections(records: Sequence[Record]) -> tuple[list[tuple[str, list[dict[str, Any]]]], list[dict[str, Any]]]:
    """The charts people look for, by section, and all others of numbers that change."""
    left = [name for name in _names(records) if not _constant(name, records)]
    sections = []
    for title, wanted in SECTIONS:
        charts = []
        for pattern in wanted:
            fitting = [name for name in left if _fits(pattern, name)]
            left = [name for name in left if name not in fitting]
            charts += [_chart(name, records) for name in fitting]
        sections.append((title, [chart for chart in charts if chart]))
    rest = [chart for name in left if (chart := _chart(name, records))]
    return [section for section in sections if section[1]], rest


def _constant(name: str, records: Sequence[Record]) -> str:
    """The one value that a metric has in all runs, as told; empty where it changes."""
    values = {value for record in records for _, value in _column(record, name)}
    return number(values.pop()) if len(values) == 1 else ""


def _fits(pattern: str, name: str) -> bool:
    if name.endswith(_QUIET):
        return False
    if pattern.endswith(("/", "@")):
        return name.startswith(pattern)
    return name == pattern


def _chart(name: str, records: Sequence[Record]) -> dict[str, Any]:
    series = [(run, _column(record, name)) for run, record in enumerate(records)]
    chart = chart_of(series, cuts_peaks=name.startswith("time/"))
    if chart is None:
        return {}
    metric = metric_of(name)
    meaning, unit = (metric.meaning, metric.unit) if metric else ("", "")
    note = LOSS_NEAR_ZERO if name == "update/loss" else ""
    return {"name": name, "meaning": meaning.replace("`", ""), "unit": unit, "note": note, "chart": chart}


def _curves(records: Sequence[Record]) -> dict[str, list[list[list[float]]]]:
    """Metric → run → [steps, values]: what the script tells under the pointer, in as many digits as it tells."""

    def axes(points: Points) -> list[list[float]]:
        return [[int(step) for step, _ in points], [float(f"{value:.5g}") for _, value in points]]

    return {name: [axes(_column(record, name)) for record in records] for name in _names(records)}


def _times(record: Record) -> list[dict[str, Any]]:
    """The median seconds of each phase, and the share of the whole step."""
    whole = _column(record, "time/step_s")
    if not whole:
        return []
    phases = {name: median(y for _, y in _column(record, f"time/{name}_s") or [(0, 0)]) for name in _PHASES}
    phases["the rest"] = max(0.0, median(y for _, y in whole) - sum(phases.values()))
    total = sum(phases.values()) or 1.0
    return [
        {"name": name, "seconds": number(seconds), "share": round(100 * seconds / total, 1)}
        for name, seconds in phases.items()
    ]


def _table(trees: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line a key, with its value in each run; `differs` where they are not equal."""
    flat = [dict(_flat(tree)) for tree in trees]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = []
    for key in keys:
        values = [one.get(key, "–") for one in flat]
        rows.append({"key": key, "values": values, "differs": len(set(values)) > 1})
    return rows


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value):
                rows += _flat(item, f"{prefix}{key}[{place}].")
        else:
            rows.append((prefix + key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return rows
