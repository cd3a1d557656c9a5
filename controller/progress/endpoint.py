"""One post of a trainer, from its bytes to an answer: `POST /progress` with a bearer token and a `ProgressReport`.

In: method, path, headers, body. Out: a status, a sentence, and for refusals that time heals how long to wait.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from controller.progress.callers import Callers, RefusalError
from controller.progress.reports import Reports
from trainer.contract.report import MAX_REPORT_BYTES, ProgressReport

PATH = "/progress"
BURST, PER_SECOND = 5.0, 0.5
"""Reports of one job: the trainer sends at most one in five seconds, and one more as it ends."""
LONGEST_TOKEN = 8192


@dataclass(frozen=True, slots=True)
class Answer:
    """`words` are for the trainer's log."""

    status: int
    words: str = ""
    retry_after: int | None = None


class Endpoint:
    """`serves` tells whether this replica reads the reports; another would keep them for nobody."""

    def __init__(
        self,
        callers: Callers,
        reports: Reports,
        serves: Callable[[], bool] = lambda: True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._callers, self._reports, self._serves = callers, reports, serves
        self._pace = Pace(now)

    def refuses(self, method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        """What can be said before the body is read."""
        length = headers.get("Content-Length", "")
        if path != PATH:
            return Answer(404, f"only {PATH} is here")
        if method != "POST":
            return Answer(405, f"{PATH} takes POST")
        if not self._serves():
            return Answer(503, "this replica does not lead", retry_after=5)
        if not (length.isascii() and length.isdigit()):
            return Answer(411, "the length of the report is missing")
        if int(length) > MAX_REPORT_BYTES:
            return Answer(413, f"a report has at most {MAX_REPORT_BYTES} bytes")
        return None

    def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            teller = self._callers.teller(_token(headers))
            if not self._pace.allows(teller.job_uid):
                raise RefusalError(429, f"{teller.key} reports too often", retry_after=round(1 / PER_SECOND))
            self._reports.take(teller, ProgressReport.model_validate_json(body))
        except RefusalError as refusal:
            return Answer(refusal.status, refusal.words, refusal.retry_after)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"]) or "the report"
            return Answer(400, f"{where}: {fault['msg']}")
        return Answer(204)


class Pace:
    """A bucket of tokens for each job."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def allows(self, key: str) -> bool:
        now = self._now()
        with self._lock:
            left, since = self._left.get(key, (BURST, now))
            left = min(BURST, left + (now - since) * PER_SECOND)
            self._left[key] = (left - 1 if left >= 1 else left), now
            if len(self._left) > 1 << 16:  # whoever rests has a full bucket again
                self._left = {kept: value for kept, value in self._left.items() if now - value[1] < BURST / PER_SECOND}
        return left >= 1


def _token(headers: Mapping[str, str]) -> str:
    kind, _, token = headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token:
        raise RefusalError(401, "no bearer token")
    if len(token) > LONGEST_TOKEN:
        raise RefusalError(401, "no such token")
    return token.strip()
