"""Jobs as lines of a table: the columns of `kubectl get grpojob`, and those of who uses the chips. Prints nothing."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from controller.lifecycle.observed import parse_time
from controller.plugin.jobs import phase_of

Body = dict[str, Any]
STYLES = {
    "Running": "green",
    "Succeeded": "bold green",
    "Failed": "bold red",
    "Restarting": "yellow",
    "Queued": "cyan",
    "Starting": "cyan",
    "Suspended": "dim",
    "Pending": "yellow",
}
COLUMNS = ("NAME", "PHASE", "TPU", "STEP", "REWARD", "RESTARTS", "ETA", "AGE")


def table_of(columns: Sequence[str], rows: Iterable[Sequence[str]], *, wraps: str = "") -> Table:
    """Columns side by side; `wraps` may take several lines."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column != wraps, overflow="fold" if column == wraps else "ellipsis")
    for row in rows:
        table.add_row(*(Text(plain(cell), STYLES.get(cell, "")) for cell in row))
    return table


def plain(text: str) -> str:
    """What a pod said, without what would move a terminal's cursor or colour what follows."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def jobs_table(jobs: Sequence[Body], *, with_namespace: bool) -> Table:
    rows = [([job["metadata"]["namespace"]] if with_namespace else []) + list(row(job)) for job in jobs]
    return table_of((*(["NAMESPACE"] if with_namespace else []), *COLUMNS), rows)


def row(job: Body) -> tuple[str, ...]:
    """One job's cells, below `COLUMNS`."""
    status = job.get("status") or {}
    progress = status.get("progress") or {}
    return (
        job["metadata"]["name"],
        phase_of(job),
        status.get("devices", ""),
        progress.get("display", ""),
        number(progress.get("rewardMean")),
        str((status.get("attempts") or {}).get("restarts", 0)),
        progress.get("eta", ""),
        age(job["metadata"].get("creationTimestamp")),
    )


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def age(since: str | None, until: str | None = None) -> str:
    """`45s`, `12m`, `3h20m`, `4d`, as kubectl tells it."""
    begun, ended = parse_time(since), parse_time(until) or datetime.now(UTC)
    if begun is None:
        return ""
    seconds = max(0, int((ended - begun).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 60:
        return f"{minutes}m"
    return f"{hours}h{minutes % 60:02d}m" if hours < 48 else f"{days}d"
