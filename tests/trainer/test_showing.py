"""What a person sees while a run goes: on a pseudo-terminal, and in the plain lines of a pod."""

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from step_row import ROW

from trainer import showing
from trainer.progress import StepShown, completions_lines
from trainer.showing import Display, Terminal, completions_table, display, shown_as
from trainer.watchdog import Heartbeat

RECORDS = [
    {"prompt": "2 + 2?", "completion": f"{text} <answer>4</answer>", "total": total, "tokens": 9, "finished": total > 0}
    | {"rewards": {"correct": total}}
    for text, total in (("an \x1b[31mescape", 1.0), ("much to say " * 12, 0.0))
]


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("shown")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    logger.handlers.clear()


def on_a_terminal(columns: int, log: logging.Logger, monkeypatch: pytest.MonkeyPatch, **environ: str) -> str:
    """All that a terminal is sent while one step with its completions is told and the next one is sampled."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color", "COLUMNS": str(columns)} | environ).items():
        monkeypatch.setenv(name, value)
    ours, theirs = os.openpty()
    sent = bytearray()
    reader = threading.Thread(target=_read, args=(ours, sent))
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        heartbeat = Heartbeat()
        shown = display(heartbeat, stream)
        assert isinstance(shown, Terminal)
        log.addHandler(shown.handler)
        shown.start()
        step = StepShown(ROW, 100, ("correct",), 1065.0)
        log.info("%s", step.line(), extra=shown_as(step))
        log.info("%s", completions_lines(RECORDS, 12), extra=shown_as(completions_table(RECORDS, 12)))
        heartbeat.begin("rollout")
        shown.refresh()
        shown.stop()
    reader.join()
    os.close(ours)
    return sent.decode()


def _read(terminal: int, sent: bytearray) -> None:
    with suppress(OSError):  # the other end was closed
        while True:
            sent.extend(os.read(terminal, 65536))


@pytest.mark.parametrize("columns", [80, 140, 160])
def test_a_terminal_shows_what_happens_now(columns: int, log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phase, step, reward, speed and what is left stand in one line at the foot; no line is wider than the terminal."""
    sent = on_a_terminal(columns, log, monkeypatch)
    lines = [line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)) if line.strip()]
    assert max(map(len, lines)) <= columns
    assert re.search(r"rollout 0 s +step 12/100 .*reward 0\.512 +4,120 tok/s +ETA 0:17:45", "\n".join(lines))
    step = [line for line in lines if line.startswith("step 12/100 | reward 0.512")]
    assert ("correct 0.410" in step[0]) == (columns == 160)
    assert any("━" in line and "ETA" in line for line in lines) == (columns > 80)
    assert any("completions of step 12, best to worst of 2" in line for line in lines)
    assert "\x1b[31m" not in sent  # a completion may not speak to the terminal


def test_no_color_is_heard(log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR the terminal is sent no colour."""
    coloured = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-9]|38|9[0-7])(?:;\d+)*m")
    assert coloured.search(on_a_terminal(140, log, monkeypatch))
    assert not coloured.search(on_a_terminal(140, log, monkeypatch, NO_COLOR="1"))


def test_a_pod_has_plain_lines(log: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal each record is its text, and a phase that goes on says so, once a minute."""
    monkeypatch.setattr(showing, "log", log)
    time = 0.0
    heartbeat = Heartbeat(now=lambda: time)
    with (tmp_path / "out").open("w+") as stream:
        shown = display(heartbeat, stream, {"TERM": "xterm"})
        assert type(shown) is Display
        log.addHandler(shown.handler)
        step = StepShown(ROW, 100, ("correct",), 1065.0)
        log.info("%s", step.line(), extra=shown_as(step))
        heartbeat.begin("evaluation")
        for time in (59.0, 61.0, 100.0, 125.0):  # noqa: B007 - the heartbeat's clock reads it
            shown.look()
        heartbeat.begin("rollout")
        time = 200.0
        shown.look()
    assert (tmp_path / "out").read_text().splitlines() == [
        step.line(),
        "still in evaluation after 61 s",
        "still in evaluation after 125 s",
        "still in rollout after 75 s",
    ]


def test_a_terminal_that_cannot_move_its_cursor_has_plain_lines() -> None:
    """TERM=dumb is an editor's terminal."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        assert type(display(Heartbeat(), stream, {"TERM": "dumb"})) is Display
    os.close(ours)
