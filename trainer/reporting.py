"""Reports to the operator: process 0 posts how far the run is, from a thread of its own.

In: rows of metrics and the heartbeat. Out: `ProgressReport`s at the address that the environment names, if any. It is
news for people and a sign of life: an endpoint that is down, slow or refuses costs training nothing. That is told once,
and then tried in silence until it works again. Of what was not sent, only the newest is.
"""

import http.client
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from trainer.contract.process import ProcessConfig
from trainer.contract.report import CA_FILE, ENV_PROGRESS_FOLDER, ENV_PROGRESS_URL, TOKEN_FILE, ProgressReport
from trainer.progress import Pace
from trainer.watchdog import Heartbeat

log = logging.getLogger("trainer")

NEWS_SECONDS = 5.0
"""A step that is done is told at most so often."""
BEAT_SECONDS = 15.0
"""And in a longer step, that the run lives."""
LONGEST_WAIT_SECONDS = 60.0
"""Between two attempts to reach an endpoint that does not answer."""
_ANSWER_SECONDS = 5.0
_LAST_WORD_SECONDS = 3.0
_LOOK_SECONDS = 0.5


class RefusedError(Exception):
    """The endpoint answered, and not with a success. `wait_seconds` is what it asked for, None where it did not."""

    def __init__(self, status: int, words: str, wait_seconds: float | None) -> None:
        super().__init__(f"it answered {status} ({words})" if words else f"it answered {status}")
        self.wait_seconds = wait_seconds


class Door:
    """The operator's endpoint, by the address and the folder that the pod was given.

    Token and authority are read anew for each report: both are renewed while a pod runs.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder

    def post(self, report: ProgressReport) -> None:
        """Raises OSError, http.client.HTTPException and RefusedError. No proxy is asked, no redirection followed."""
        parts = urlsplit(self.url)
        token = (self._folder / TOKEN_FILE).read_text().strip()
        trusted = ssl.create_default_context(cafile=str(self._folder / CA_FILE))
        place = parts.hostname or "", parts.port or 443
        connection = http.client.HTTPSConnection(*place, timeout=_ANSWER_SECONDS, context=trusted)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Connection": "close"}
        try:
            connection.request("POST", parts.path or "/", report.model_dump_json().encode(), headers)
            answer = connection.getresponse()
            if answer.status >= http.client.MULTIPLE_CHOICES:
                words = answer.read(256).decode(errors="replace").strip()
                raise RefusedError(answer.status, words, _seconds(answer.headers.get("Retry-After")))
        finally:
            connection.close()


class Reporter:
    """Speaks for a run while it lives; without a door (None) it is silent. Only its thread waits for an answer."""

    def __init__(
        self,
        door: Door | None,
        heartbeat: Heartbeat,
        attempt: int,
        total_steps: int,
        patience: Callable[[], float | None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._door, self._heartbeat, self._now = door, heartbeat, now
        self._attempt, self._total, self._patience = attempt, total_steps, patience
        self._pace = Pace()
        self._step = 0
        self._committed: Callable[[], int | None] = lambda: None
        self._numbers: dict[str, float | None] = {}
        self._news, self._sent_at, self._next_at = True, -math.inf, -math.inf
        self._failures = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="reports", daemon=True)

    @classmethod
    def of(
        cls,
        process: ProcessConfig,
        environ: Mapping[str, str],
        heartbeat: Heartbeat,
        patience: Callable[[], float | None] = lambda: None,
    ) -> "Reporter":
        url, folder = environ.get(ENV_PROGRESS_URL), environ.get(ENV_PROGRESS_FOLDER)
        speaks = url and folder and process.process_index == 0
        door = Door(url, Path(folder)) if speaks and url and folder else None
        return cls(door, heartbeat, process.attempt, process.run.steps, patience)

    def start(self) -> None:
        if self._door is not None:
            self._thread.start()

    def begin(self, step: int, committed: Callable[[], int | None]) -> None:
        """The step that this attempt goes on from; `committed` gives that of the newest checkpoint, at any time."""
        self._step, self._committed, self._news = step, committed, True

    def tell(self, row: Mapping[str, float]) -> None:
        """A step is done: its row of metrics."""
        step = int(row["step"])
        self._pace.add(row["time/step_s"])
        self._numbers = {
            "reward_mean": _finite(row["reward/total/mean"]),
            "tokens_per_second_per_device": _finite(row["throughput/completion_tokens_per_s_per_device"]),
            "eta_seconds": self._pace.remaining_seconds(self._total - step),
        }
        self._step, self._news = step, True

    def close(self) -> None:
        """One last report, if the endpoint takes it at once."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_WORD_SECONDS)

    # --- the thread

    def _live(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            if self.is_due():
                self.report()
        if self._news and not self._failures:
            self.report()

    def is_due(self) -> bool:
        now = self._now()
        since = now - self._sent_at
        return now >= self._next_at and since >= (NEWS_SECONDS if self._news else BEAT_SECONDS)

    def report(self) -> None:
        """Post what is known now. What fails is tried again later, each time after twice as long."""
        door = self._door
        if door is None:
            return
        self._news, self._sent_at = False, self._now()
        try:
            door.post(self.current())
        except (OSError, http.client.HTTPException, RefusedError, ValueError) as error:
            self._news = True
            self._failed(door, error)
            return
        if self._failures:
            log.info("progress is reported to %s again", door.url)
        self._failures = 0

    def current(self) -> ProgressReport:
        beat = self._heartbeat
        return ProgressReport(
            attempt=self._attempt,
            heartbeat=beat.count,
            doing=beat.doing[:256],
            step=self._step,
            total_steps=self._total,
            checkpoint_step=self._committed(),
            patience_seconds=self._patience(),
            **self._numbers,
        )

    def _failed(self, door: Door, error: Exception) -> None:
        if not self._failures:
            text = "progress could not be reported to %s: %s; training goes on, and it is tried again"
            log.warning(text, door.url, error)
        self._failures += 1
        asked = getattr(error, "wait_seconds", None) or NEWS_SECONDS * 2 ** min(self._failures - 1, 8)
        self._next_at = self._now() + min(asked, LONGEST_WAIT_SECONDS)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None
