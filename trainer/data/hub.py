"""Data sets of the Hugging Face hub: a name comes in, the parquet or JSONL files of one split on this machine go out.

What such a file holds is not known here. Files come from the hub's cache (HF_HOME) where HF_HUB_OFFLINE is set.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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


def fetch(field: str, source: str, split: str) -> list[HubFile]:
    """All files of one split of `source`, which is gsm8k or a hub name. Raises DataError."""
    if source == GSM8K:
        if split not in _GSM8K_FILES:
            raise DataError(f"eval_split: {split!r} is no split of {GSM8K}; use {' or '.join(_GSM8K_FILES)}")
        return _downloaded(field, source, HubName(_GSM8K_REPOSITORY, None, None), [_GSM8K_FILES[split]])
    name = parse(source)
    assert name is not None  # noqa: S101 - the caller asks `parse` first
    files = _listed(field, source, name)
    if name.revision is None and not any(file.endswith(SUFFIXES) for file in files):
        name = HubName(name.repository, name.config, _CONVERTED)
        files = _listed(field, source, name)
    return _downloaded(field, source, name, choose(field, source, files, name.config, split))


def choose(field: str, source: str, files: Sequence[str], config: str | None, split: str) -> list[str]:
    """The files of one split among all of a repository, as the hub's own conventions name them. Raises DataError.

    https://huggingface.co/docs/datasets/repository_structure: the split is a word of the file's or a folder's name,
    and a folder is a config.
    """
    tables = [file for file in files if file.endswith(SUFFIXES)]
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


def _listed(field: str, source: str, name: HubName) -> list[str]:
    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        if not constants.HF_HUB_OFFLINE:
            return HfApi().list_repo_files(name.repository, revision=name.revision, repo_type="dataset")
        cached = snapshot_download(name.repository, repo_type="dataset", revision=name.revision, local_files_only=True)
    except Exception as error:
        raise _not_fetched(field, source, name, error) from error
    folder = Path(cached)
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def _downloaded(field: str, source: str, name: HubName, files: Sequence[str]) -> list[HubFile]:
    from huggingface_hub import hf_hub_download

    try:
        paths = [hf_hub_download(name.repository, file, repo_type="dataset", revision=name.revision) for file in files]
    except Exception as error:
        raise _not_fetched(field, source, name, error) from error
    return [HubFile(f"{name.repository} {file}", Path(path)) for file, path in zip(files, paths, strict=True)]


def _not_fetched(field: str, source: str, name: HubName, error: Exception) -> Exception:
    """What the hub or the network said, as a DataError; anything else as it is, since it is a fault of ours."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    transport = HfHubHTTPError.__bases__  # the network's own faults, whichever client the hub's library speaks through
    if not isinstance(error, (OSError, ValueError, EntryNotFoundError, *transport)):
        return error
    absent = (EntryNotFoundError, GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError)
    refused = isinstance(error, absent) and not isinstance(error, LocalEntryNotFoundError)
    fix = "check the name, or set HF_TOKEN where it is private" if refused else "check the network"
    return DataError(
        f"{field}: {source} could not be fetched from {name.repository} on the hub "
        f"({str(error).strip().splitlines()[0]}); {fix}, or give a JSONL or parquet file",
        permanent=refused or constants.HF_HUB_OFFLINE,
    )
