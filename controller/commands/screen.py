"""One job on one screen: facts, conditions, pods, and what happened lately. Prints nothing.

In: a `Whole`. Out: what rich draws.
"""

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from controller.commands.jobrows import STYLES, age, number, plain, table_of
from controller.plugin import runfolders
from controller.plugin.jobs import is_over, phase_of
from controller.plugin.whole import Whole

Body = dict[str, Any]
MOST_ATTEMPTS, MOST_PODS = 4, 16
STATES = ("Validated", "Admitted", "Provisioned", "Running", "Progressing")
"""Conditions of a job that goes on, told whatever they are; the others once they are so."""


def screen_of(whole: Whole) -> RenderableType:
    parts: list[RenderableType] = [_head(whole.job), _facts(whole.job)]
    for title, table in (
        ("conditions", _conditions(whole.job)),
        ("pods", _pods(whole)),
        ("events", _events(whole)),
    ):
        if table.row_count:
            parts += [Text(f"\n{title}", "bold"), Padding(table, (0, 0, 0, 2), expand=False)]
    parts += [Text(f"\n{line}", "yellow") for line in whole.hidden]
    return Group(*parts)


def _head(job: Body) -> Text:
    metadata, status, phase = job["metadata"], job.get("status") or {}, phase_of(job)
    text = Text().append(metadata["name"], "bold")
    text.append(f"  {phase}", STYLES.get(phase, ""))
    devices = f", {status['devices']}" if status.get("devices") else ""
    took = age(status.get("startTime"), status.get("completionTime"))
    ran = f", ran {took}" if status.get("completionTime") else f", age {age(metadata.get('creationTimestamp'))}"
    text.append(f"  namespace {metadata['namespace']}{devices}{ran}", "dim")
    return text


def _facts(job: Body) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, told in _told(job):
        table.add_row(f"  {name}", Text(plain(told)))
    return table


def _told(job: Body) -> Iterator[tuple[str, str]]:
    status = job.get("status") or {}
    yield "model", str(job["spec"].get("modelPath", ""))
    if folder := runfolders.kept_in(job):
        yield "run folder", folder
    if plan := status.get("plan"):
        yield "plan", plan["summary"]
    if progress := status.get("progress"):
        yield "progress", _progress(progress, over=is_over(job))
    if (checkpoint := status.get("checkpoint") or {}).get("lastStep") is not None:
        yield "checkpoint", f"step {checkpoint['lastStep']}"
    yield from _attempts(job["spec"].get("restart") or {}, status.get("attempts") or {})


def _progress(progress: Body, *, over: bool) -> str:
    parts = [f"step {progress['display']}"]
    if progress.get("rewardMean") is not None:
        parts.append(f"reward {number(progress['rewardMean'])}")
    if progress.get("tokensPerSecondPerChip") is not None:
        parts.append(f"{progress['tokensPerSecondPerChip']:,.0f} tokens/s per chip")
    if progress.get("eta") and not over:
        parts.append(f"{progress['eta']} left")
    if progress.get("lastStepTime") and progress["step"] and not over:
        parts.append(f"last step {age(progress['lastStepTime'])} ago")
    return ", ".join(parts)


def _attempts(allowed: Body, attempts: Body) -> Iterator[tuple[str, str]]:
    restarts, disruptions = attempts.get("restarts", 0), attempts.get("disruptions", 0)
    spent = f"{restarts} of {allowed.get('maxRestarts', 3)} restarts"
    spent += f", {disruptions} of {allowed.get('maxDisruptions', 100)} disruptions"
    evictions = attempts.get("evictions", 0)
    yield "attempts", spent + (f", {evictions} evictions" if evictions else "")
    for attempt in reversed((attempts.get("last") or [])[-MOST_ATTEMPTS:]):
        code = f", exit code {attempt['exitCode']}" if attempt.get("exitCode") is not None else ""
        where = f" in {attempt['pod']}" if attempt.get("pod") else ""
        step = f" after step {attempt['step']}" if attempt.get("step") is not None else ""
        message = f": {attempt['message']}" if attempt.get("message") else ""
        yield "", f"{age(attempt.get('time'))} ago {attempt['reason']} ({attempt['class']}{code}){where}{step}{message}"


def _conditions(job: Body) -> Table:
    found = (job.get("status") or {}).get("conditions") or ()
    shown = [one for one in found if one["status"] == "True" or (one["type"] in STATES and not is_over(job))]
    table = table_of(("CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE"), (), wraps="MESSAGE")
    for one in shown:
        bad = one["type"] == "Failed" or one["status"] != "True"
        style = "yellow" if bad else "green"
        since = age(one["lastTransitionTime"])
        table.add_row(one["type"], Text(one["status"], style), since, one["reason"], _message(one["message"], bad))
    return table


def _pods(whole: Whole) -> Table:
    columns = ("POD", "SLICE", "HOST", "ATTEMPT", "PHASE", "NODE", "AGE", "")
    rows: list[tuple[str, ...]] = [
        (
            worker.pod.name,
            str(worker.pod.slice_index),
            str(worker.pod.host_index),
            str(worker.attempt),
            worker.pod.phase,
            worker.node,
            age(worker.created),
            worker.why,
        )
        for worker in whole.workers
    ]
    if len(rows) > MOST_PODS:
        rows = [*rows[:MOST_PODS], (f"and {len(rows) - MOST_PODS} more", *[""] * 7)]
    return table_of(columns, rows, wraps="")


def _events(whole: Whole) -> Table:
    table = table_of(("AGO", "TYPE", "REASON", "OBJECT", "MESSAGE"), (), wraps="MESSAGE")
    for event in whole.events:
        style = "yellow" if event["type"] == "Warning" else ""
        told = _message(event["message"], bool(style))
        table.add_row(age(event["time"]), Text(event["type"], style), event["reason"], event["object"], told)
    return table


def _message(text: str, whole: bool) -> Text:
    """In full where something is the matter; else as much as fits into the line, for a terminal has few."""
    return Text(plain(text)) if whole else Text(plain(text), no_wrap=True, overflow="ellipsis")
