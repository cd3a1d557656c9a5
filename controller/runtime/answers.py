"""What the API server answers, read: JSON where it did what was asked, an `ApiError` where it did not, or said nothing.

It sends nothing, and knows no kinds of objects.
"""

import json
from collections.abc import Mapping
from typing import Any

import urllib3

TRANSIENT = {0, 408, 429, 500, 502, 503, 504}


class ApiError(Exception):
    """An answer that is no success, or none at all (`status` 0: whether the server acted is then unknown).

    `reason` is the server's (`Conflict`, `AlreadyExists`, `Expired`, …); `retry_after` is in seconds, if it named one;
    `details` are the server's.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status or 'no answer'} {reason}: {message}")
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after
        self.details = details or {}

    @property
    def already_exists(self) -> bool:
        return self.reason == "AlreadyExists"

    @property
    def is_conflict(self) -> bool:
        """The object has changed since it was read, its uid is another, or another manager owns the field."""
        return self.status == 409 and not self.already_exists

    @property
    def is_not_found(self) -> bool:
        return self.status == 404

    @property
    def lacks_kind(self) -> bool:
        """The server does not know the kind that was asked for: what defines it is not installed."""
        return self.status == 404 and "name" not in self.details

    @property
    def causes(self) -> tuple[tuple[str, str], ...]:
        """What is wrong with the object that was sent: the path of each field, and what is said of it."""
        found = self.details.get("causes") or ()
        return tuple((str(one.get("field", "")), str(one.get("message", ""))) for one in found)

    @property
    def is_gone(self) -> bool:
        """A resource version that the server no longer has: list again."""
        return self.status == 410 or self.reason in {"Expired", "Gone"}

    @property
    def is_invalid(self) -> bool:
        return self.status == 422

    @property
    def is_transient(self) -> bool:
        """The same request may succeed later."""
        return self.status in TRANSIENT


def read(status: int, retry_after: str | None, content: bytes, what: str) -> Any:
    try:
        found = json.loads(content) if content else {}
    except ValueError:
        found = {"message": content[:500].decode(errors="replace").strip()}
    if 200 <= status < 300:
        return found
    raise refusal(status, retry_after, found if isinstance(found, dict) else {}, what)


def refusal(status: int, retry_after: str | None, told: dict[str, Any], what: str) -> ApiError:
    seconds = (
        retry_after if retry_after and retry_after.isdigit() else (told.get("details") or {}).get("retryAfterSeconds")
    )
    return ApiError(
        status,
        told.get("reason") or {429: "TooManyRequests", 503: "ServiceUnavailable"}.get(status, "Unknown"),
        told.get("message") or what,
        None if seconds is None else float(seconds),
        told.get("details"),
    )


def unanswered(error: Exception, what: str) -> ApiError:
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)  # a time-out, by urllib3's family tree
    late = isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError) and not refused
    return ApiError(0, "Timeout" if late else "ConnectionFailed", f"{what}: {error}")
