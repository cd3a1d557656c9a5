"""Rows of a data set: a JSONL file, or GSM8K from the hub, comes in; one dict per row goes out.

A row that cannot be read is named by file and line: the user has to find it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GSM8K = "gsm8k"
_GSM8K_REPOSITORY = "openai/gsm8k"  # https://huggingface.co/datasets/openai/gsm8k
_GSM8K_FILES = {split: f"main/{split}-00000-of-00001.parquet" for split in ("train", "test")}


class DataError(Exception):
    """*path: value, rule, fix*. `permanent` is False where asking again may help: a hub that did not answer."""

    def __init__(self, message: str, *, permanent: bool = True):
        super().__init__(message)
        self.permanent = permanent


@dataclass(frozen=True, slots=True)
class Row:
    """`place` names the row to a person: `FILE line 3`."""

    place: str
    columns: dict[str, Any]


def read_rows(field: str, source: str, split: str) -> list[Row]:
    """All rows of `source`, which the configuration names at `field` (`data.train`). Raises DataError."""
    rows = _gsm8k(field, split) if source == GSM8K else _jsonl(field, Path(source).expanduser())
    if not rows:
        raise DataError(f"{field}: {source} holds no rows; give a file with one JSON object per line")
    return rows


def _jsonl(field: str, path: Path) -> list[Row]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{field}: {path} cannot be read ({reason}); give a JSONL file, or {GSM8K}") from None
    return [_parsed(field, f"{path} line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]


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


def _gsm8k(field: str, split: str) -> list[Row]:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError
    from pyarrow import parquet

    if split not in _GSM8K_FILES:
        raise DataError(f"eval_split: {split!r} is no split of {GSM8K}; use {' or '.join(_GSM8K_FILES)}")
    name = _GSM8K_FILES[split]
    try:
        path = hf_hub_download(_GSM8K_REPOSITORY, name, repo_type="dataset")
    except (OSError, ValueError) as error:
        refused = isinstance(error, (GatedRepoError, RepositoryNotFoundError, EntryNotFoundError))
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"{field}: {GSM8K} could not be fetched from {_GSM8K_REPOSITORY} on the hub ({reason}); "
            "check the network, or give a JSONL file",
            permanent=refused or constants.HF_HUB_OFFLINE,
        ) from None
    rows = parquet.read_table(path).to_pylist()
    return [Row(f"{_GSM8K_REPOSITORY} {name} row {number}", columns) for number, columns in enumerate(rows, 1)]
