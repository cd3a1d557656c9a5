"""The API server's clock, as its answers tell it: deadlines compare moments that it wrote.

This machine's own may be wrong, and may be set while the operator runs. From one answer to the next a clock that nobody
sets goes on.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

HEARD_SECONDS = 10.0
"""Not every answer's date is read."""


class ServerClock:
    """For any thread. Before the first answer, and where answers carry no date, it is this machine's."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        own: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._monotonic, self._own = monotonic, own
        self._heard: tuple[datetime, float] | None = None

    def hear(self, date: str | None) -> None:
        """The header `Date` of an answer."""
        at, heard = self._monotonic(), self._heard
        if date is None or (heard is not None and at - heard[1] < HEARD_SECONDS):
            return
        with suppress(ValueError):
            moment = parsedate_to_datetime(date)
            if moment.tzinfo is not None:
                self._heard = moment.astimezone(UTC), at

    def now(self) -> datetime:
        if (heard := self._heard) is None:
            return self._own()
        moment, at = heard
        return moment + timedelta(seconds=self._monotonic() - at)
