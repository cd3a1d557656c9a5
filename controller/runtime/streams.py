"""Answers that go on: the lines of a log, the events of a watch, until the server or somebody here ends them.

In: how such an answer is opened. It refuses to know what is followed, and opens nothing again.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import urllib3

from controller.runtime.answers import refusal, unanswered

# The API server sends a bookmark about once a minute: a watch that is silent for longer is no watch any more.
STALL_SECONDS = 75.0


class Lines:
    """Yields lines until the server ends the answer; `close` ends it from any thread. Iterate once.

    Raises `ApiError`: status 0 for a cut connection or for silence of more than `stall_seconds`.
    """

    def __init__(self, opened: Callable[[], Any], stall_seconds: float = STALL_SECONDS) -> None:
        self._opened, self._stall_seconds = opened, stall_seconds
        self._lock = threading.Lock()
        self._response: Any = None
        self._closed = False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._response is not None:
                # A socket whose other side has gone is as closed as one can wish.
                with suppress(OSError, ValueError):
                    self._response.shutdown()

    def __iter__(self) -> Iterator[bytes]:
        response = self._opened()
        with self._lock:
            self._response = response
            closed = self._closed
        try:
            if response.connection is not None and response.connection.sock is not None:
                response.connection.sock.settimeout(self._stall_seconds)
            if not closed:
                yield from _lines(response)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if not self._closed:
                raise unanswered(error, "a stream") from error
        finally:
            with self._lock:
                self._response = None
            response.close()


def _lines(response: Any) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(None, decode_content=True):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


class Watch:
    """Yields (type, object) until the server ends the watch, or `lines` is closed. Iterate once.

    Raises `ApiError`: as `Lines` do, and `is_gone` where the resource version is too old.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def close(self) -> None:
        self._lines.close()

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for line in self._lines:
            if line:
                yield _event(line)


def _event(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise unanswered(error, "a watch") from error
    if event["type"] == "ERROR":
        raise refusal(event["object"].get("code", 500), None, event["object"], "watch")
    return event["type"], event["object"]
