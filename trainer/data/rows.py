"""Rows of a data set: JSONL or parquet files, here, in a bucket or on the hub, come in; one dict per row goes out.

A row that cannot be read is named by file and line: the user has to find it.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from trainer import bucket
from trainer.data import hub
from trainer.data.faults import DataError as DataError


@dataclass(frozen=True, slots=True)
class Row:
    """`place` names the row to a person: `FILE line 3`."""

    place: str
    columns: dict[str, Any]


def read_rows(field: str, source: str, split: str, fetched: Sequence[hub.HubFile] | None = None) -> list[Row]:
    """All rows of `source`, which the configuration names at `field` (`data.train`). Raises DataError.

    `split` is for data sets of the hub, whose files may be `fetched` already; a file is one split.
    """
    if fetched is not None:
        files = list(fetched)
    elif bucket.is_uri(source):
        files = _from_bucket(field, source)
    elif hub.is_name(source):
        files = hub.fetch(field, source, split)
    else:
        files = [hub.HubFile(str(path), path) for path in _paths(field, source)]
    rows = [row for file in files for row in _read(field, file)]
    if not rows:
        raise DataError(f"{field}: {source} holds no rows; give a file with one JSON object per line, or parquet")
    return rows


def _from_bucket(field: str, source: str) -> list[hub.HubFile]:
    """An object, or all of one folder whose names fit a pattern."""
    folder, _, name = source.rpartition("/")
    try:
        found = [one for one in bucket.listing(f"{folder}/{name.partition('*')[0]}") if _fits(one.uri, folder, name)]
        if not found:
            raise DataError(f"{field}: no object of the bucket is called {source}; give JSONL or parquet files")
        here = bucket.kept(folder, found)
    except bucket.BucketError as error:
        raise DataError(f"{field}: {error}", permanent=error.permanent) from error
    return [hub.HubFile(one.uri, here / one.uri.rpartition("/")[2]) for one in found]


def _fits(uri: str, folder: str, pattern: str) -> bool:
    name = uri.removeprefix(f"{folder}/")
    return "/" not in name and fnmatchcase(name, pattern)


def _paths(field: str, source: str) -> list[Path]:
    path = Path(source).expanduser()
    if "*" not in path.name:
        return [path]
    found = sorted(path.parent.glob(path.name))
    if not found:
        raise DataError(f"{field}: no file is called like {source}; give JSONL or parquet files")
    return found


def _read(field: str, file: hub.HubFile) -> list[Row]:
    if file.path.suffix == ".parquet":
        return _parquet(field, file)
    try:
        lines = file.path.read_bytes().removeprefix(BOM_UTF8).split(b"\n")
    except OSError as error:
        raise _unreadable(field, file, error.strerror or str(error)) from None
    return [_parsed(field, f"{file.label} line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def _parquet(field: str, file: hub.HubFile) -> list[Row]:
    from pyarrow import ArrowException, parquet

    try:
        rows = parquet.ParquetFile(file.path).read().to_pylist()
    except OSError as error:
        raise _unreadable(field, file, error.strerror or str(error).strip().splitlines()[0]) from None
    except ArrowException as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{field}: {file.label} is not parquet ({reason}); write the file again") from None
    return [Row(f"{file.label} row {number}", columns) for number, columns in enumerate(rows, 1)]


def _unreadable(field: str, file: hub.HubFile, reason: str) -> DataError:
    kinds = f"a JSONL or parquet file, a data set of the hub (owner/name), or {hub.GSM8K}"
    return DataError(f"{field}: {file.label} cannot be read ({reason}); give {kinds}")


def _parsed(field: str, place: str, line: bytes) -> Row:
    try:
        columns = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{field}: {place} is not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        fault = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        raise DataError(f"{field}: {place} is not JSON ({fault}); correct or remove the line") from None
    if not isinstance(columns, dict):
        kind = type(columns).__name__
        raise DataError(f"{field}: {place} is a {kind}, and must be an object; write {{...}} with a key per column")
    return Row(place, columns)
