"""Data sets of the Hugging Face hub: a name comes in, the parquet or JSONL files of one split on this machine go out.

What such a file holds is not known here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from trainer import hub
from trainer.data.faults import DataError

GSM8K = "gsm8k"
_GSM8K_REPOSITORY = "openai/gsm8k"  # https://huggingface.co/datasets/openai/gsm8k
_GSM8K_FILES = {split: f"main/{split}-00000-of-00001.parquet" for split in ("train", "test")}
_CONVERTED = "refs/convert/parquet"
"""Where the hub keeps a parquet copy of data sets in other forms: https://huggingface.co/docs/dataset-viewer/parquet"""

_NAME = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")
SUFFIXES = (".parquet", ".jsonl")


@dataclass(frozen=True, slots=True)
class HubName:
    """`owner/name`, with `:config` where it holds several tables, and `@revision` (a branch, tag or commit)."""

    repository: str
    config: str | None
    revision: str | None


@dataclass(frozen=True, slots=True)
class HubFile:
    """`label` names the file to a person."""

    label: str
    path: Path


def parse(source: str) -> HubName | None:
    """The name of a data set on the hub, or None where `source` cannot be one."""
    match = _NAME.fullmatch(source)
    return HubName(match["repository"], match["config"], match["revision"]) if match else None


def is_name(source: str) -> bool:
    """Whether `source` is a data set of the hub. A name that could be both is a file where there is one, and where it
    ends like one.
    """
    if source == GSM8K:
        return True
    path = Path(source).expanduser()
    return not path.exists() and path.suffix not in (*SUFFIXES, ".json") and parse(source) is not None


def name_of(field: str, source: str) -> hub.Name:
    """The repository of `source`, for which `is_name` holds."""
    if source == GSM8K:
        return hub.Name(field, source, "dataset", _GSM8K_REPOSITORY)
    name = parse(source)
    assert name is not None  # noqa: S101 - the caller asks `is_name` first
    return hub.Name(field, source, "dataset", name.repository, name.revision)


def pin(field: str, source: str, split: str) -> hub.Pin:
    """All files of one split of `source`, for which `is_name` holds. Raises DataError and HubError."""
    name = name_of(field, source)
    if source == GSM8K:
        if split not in _GSM8K_FILES:
            raise DataError(f"eval_split: {split!r} is no split of {GSM8K}; use {' or '.join(_GSM8K_FILES)}")
        return hub.pin(name, lambda _: (_GSM8K_FILES[split],))
    found, parsed = _tables(name), parse(source)
    chosen = choose(field, source, found.files, parsed.config if parsed else None, split)
    return replace(found, files=tuple(chosen))


def _tables(name: hub.Name) -> hub.Pin:
    """What can be read of a repository, or of the hub's own copy where it has another form."""
    try:
        found = hub.pin(name, _readable)
    except hub.HubError:
        if name.revision is not None or not hub.is_offline():
            raise
    else:
        if name.revision is not None or found.files:
            return found
    return hub.pin(replace(name, revision=_CONVERTED), _readable)


def _readable(files: Sequence[str]) -> list[str]:
    return [file for file in files if file.endswith(SUFFIXES)]


def files_of(pin: hub.Pin, folder: Path) -> list[HubFile]:
    """The files of `pin` in a folder that holds them."""
    return [HubFile(f"{pin.name.repository} {file}", folder / file) for file in pin.files]


def fetch(field: str, source: str, split: str) -> list[HubFile]:
    """As `pin`, and the files fetched by a process that is alone. Raises DataError."""
    try:
        found = pin(field, source, split)
        return files_of(found, hub.cached(found) or hub.download(found))
    except hub.HubError as error:
        raise DataError(str(error), permanent=error.permanent) from error


def choose(field: str, source: str, files: Sequence[str], config: str | None, split: str) -> list[str]:
    """The files of one split among all of a repository, as the hub's own conventions name them. Raises DataError.

    https://huggingface.co/docs/datasets/repository_structure: the split is a word of the file's or a folder's name,
    and a folder is a config.
    """
    tables = _readable(files)
    if config is not None:
        tables = [file for file in tables if config in PurePosixPath(file).parts[:-1]]
    word = re.compile(rf"(?:^|[/_.-]){re.escape(split)}(?=[/.-]|_\d|$)")
    chosen = [file for file in tables if word.search(file)]
    chosen = [file for file in chosen if file.endswith(SUFFIXES[0])] or chosen
    blamed = "eval_split" if field == "data.eval" else field
    if not chosen:
        held = ", ".join(tables[:6]) + (", …" if len(tables) > 6 else "") if tables else "no parquet or JSONL file"
        raise DataError(
            f"{blamed}: {source} on the hub has no files of split {split!r} (it holds {held}); "
            "name another split or config, or give a file"
        )
    folders = sorted({str(PurePosixPath(file).parent) for file in chosen})
    if len(folders) > 1:
        raise DataError(
            f"{field}: {source} holds several tables with a split {split!r} ({', '.join(folders)}); "
            f"name one, such as {source.partition('@')[0]}:{PurePosixPath(folders[0]).parts[0]}"
        )
    _refuse_missing_shards(field, source, chosen)
    return sorted(chosen)


def _refuse_missing_shards(field: str, source: str, chosen: Sequence[str]) -> None:
    """A cache may hold some shards of a split only, and a part of the data is not the data."""
    told = [match.groups() for match in map(_SHARD.search, chosen) if match]
    wanted = int(told[0][1]) if told else len(chosen)
    if told and len(told) != wanted:
        raise DataError(
            f"{field}: only {len(told)} of the {wanted} files of {source} are in the hub's cache; download all of them"
        )
