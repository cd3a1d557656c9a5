"""What a person sees of a run while it goes: log lines come in, and on a terminal a line that says what happens now.

In a pod, or wherever nobody sits at a terminal, lines are plain, and a long phase says now and then that it lives. It
refuses to know what is trained: a log record carries what a terminal shows in its place (`extra=shown_as(...)`).
"""

import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from trainer.progress import StepShown, chosen, completions_title, one_line, short
from trainer.watchdog import Heartbeat

log = logging.getLogger("trainer")

STILL_SECONDS = 60.0
"""So often does a phase that goes on say so in plain lines."""
_KEY = "shown"
_WIDE = 100
"""Columns from which the line has room for a bar."""


def shown_as(what: RenderableType | StepShown) -> dict[str, Any]:
    """`extra` of a log call whose record looks better on a terminal than its text does."""
    return {_KEY: what}


def display(heartbeat: Heartbeat, stream: TextIO = sys.stdout, environ: Mapping[str, str] = os.environ) -> "Display":
    """The display for a stream: of a terminal that can move its cursor, or of anything else."""
    if stream.isatty() and environ.get("TERM", "dumb") != "dumb":
        return Terminal(heartbeat, Console(file=stream))
    return Display(heartbeat, logging.StreamHandler(stream))


class Display:
    """Plain lines."""

    def __init__(self, heartbeat: Heartbeat, handler: logging.Handler) -> None:
        self.handler = handler
        self._heartbeat = heartbeat
        self._told = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="still", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def look(self) -> None:
        """Say that a phase goes on, where that is due."""
        seconds = self._heartbeat.phase_seconds
        if seconds < self._told:  # another phase has begun
            self._told = 0.0
        if seconds - self._told >= STILL_SECONDS:
            self._told = seconds
            log.info("still in %s after %.0f s", self._heartbeat.phase, seconds)

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            self.look()


class Terminal(Display):
    """Lines that fit the terminal, above one that is drawn anew four times a second."""

    def __init__(self, heartbeat: Heartbeat, console: Console) -> None:
        self._console = console
        self._line = _Now(heartbeat)
        super().__init__(heartbeat, _TerminalHandler(console, self._line))
        self._live = Live(get_renderable=lambda: self._line, console=console, refresh_per_second=4, transient=True)

    def start(self) -> None:
        self._live.start()
        self._console.show_cursor(True)  # else it stays hidden where the process is killed

    def refresh(self) -> None:
        """Draw the line at the foot now."""
        self._live.refresh()

    def stop(self) -> None:
        self._live.stop()


class _TerminalHandler(logging.Handler):
    def __init__(self, console: Console, line: "_Now") -> None:
        super().__init__()
        self._console, self._now = console, line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._console.print(self._rendered(record), highlight=False)
        except Exception:
            self.handleError(record)

    def _rendered(self, record: logging.LogRecord) -> RenderableType:
        what: RenderableType | StepShown = getattr(record, _KEY, None) or Text(self.format(record))
        if isinstance(what, StepShown):
            self._now.step = what
            return Text(what.fitting(self._console.width), no_wrap=True, overflow="ellipsis")
        return what


@dataclass(slots=True)
class _Now:
    """The line at the foot: phase and how long it takes, step, reward, speed, the time that is left."""

    heartbeat: Heartbeat
    step: StepShown | None = None
    spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    def __rich_console__(self, console: Console, _options: object) -> Any:
        shown = self.step
        grid = Table.grid(padding=(0, 1))
        cells: list[RenderableType] = [self.spinner, Text(self._phase(), style="bold")]
        if shown is not None:
            cells.append(Text(f"step {shown.step}/{shown.steps}"))
            if console.width >= _WIDE:
                cells.append(ProgressBar(shown.steps, shown.step, width=console.width - _WIDE + 16))
            cells += [Text(part, style="dim") for part in (shown.reward, shown.speed, shown.eta)]
        for _ in cells:
            grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(*cells)
        yield grid

    def _phase(self) -> str:
        compiles = self.step is None and self.heartbeat.phase in ("rollout", "update", "evaluation")
        first = " (the first compiles)" if compiles else ""
        return f"{self.heartbeat.phase} {self.heartbeat.phase_seconds:.0f} s{first}"


def completions_table(records: Sequence[Mapping[str, Any]], step: int) -> Table:
    """The same for a terminal: prompt, completion, and the rewards below one another."""
    table = Table(title=completions_title(records, step), title_justify="left", title_style="", show_lines=True)
    table.add_column("prompt", ratio=2, overflow="fold")
    table.add_column("completion", ratio=4, overflow="fold")
    table.add_column("reward", no_wrap=True)
    for record in chosen(records):
        parts = [f"{name} {short(value)}" for name, value in record["rewards"].items()]
        length = f"{record['tokens']} tokens" + ("" if record["finished"] else ", cut off")
        worth = Text("\n").join(
            [Text(short(record["total"]), "bold"), *(Text(part, "dim") for part in [*parts, length])]
        )
        table.add_row(Text(one_line(record["prompt"], 240)), Text(one_line(record["completion"], 480)), worth)
    return table
