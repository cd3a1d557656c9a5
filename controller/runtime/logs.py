"""Log lines for machines (JSON, one object a line) or for people (text), with the fields of what is being worked on."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

Format = Literal["json", "text"]
_FIELDS: ContextVar[dict[str, Any] | None] = ContextVar("fields", default=None)


@contextmanager
def fields(**more: Any) -> Iterator[None]:
    """What this thread logs inside carries these too, such as namespace, job and uid."""
    token = _FIELDS.set({**(_FIELDS.get() or {}), **more})
    try:
        yield
    finally:
        _FIELDS.reset(token)


class JsonLines(logging.Formatter):
    """`time` is RFC 3339 in UTC; a traceback is the field `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(_FIELDS.get() or {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = "".join(f" {name}={value}" for name, value in (_FIELDS.get() or {}).items())
        line = f"{_time(record)} {record.levelname.lower()} {record.getMessage()}{told}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure(form: Format = "json", level: str = "info", stream: TextIO = sys.stderr) -> None:
    """All loggers write to `stream` from here on; what other libraries tell below `warning` is left out."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("urllib3").setLevel(logging.WARNING)
