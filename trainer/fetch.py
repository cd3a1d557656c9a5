"""`python -m trainer fetch RUN FOLDER`: a run folder comes in, a bucket's too; copies of its files go out, or a text.

It loads no JAX, and what lies on a disk needs no library of a bucket.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from trainer.contract.documents import dump_document
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.runfolder import RunFolder

_NAMES = RunFolder("")
LARGE = tuple(f"{path.lstrip('/')}/" for path in (_NAMES.checkpoints, _NAMES.inputs, _NAMES.compile_cache))
_DESCRIPTION = "Copy what a run left in its folder: metrics, completions, evaluations, logs, the export."


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a run folder; `copy` puts it at a path of this machine."""

    path: str
    size: int
    copy: Callable[[Path], object]
    text: Callable[[], bytes | None]


def main(argv: Sequence[str]) -> int:
    """Exit code 0, or 2 with one line on stderr where there is no such run, file or place."""
    given = _parser().parse_args(argv)
    try:
        _fetch(given)
    except RunError as error:
        print(error.message, file=sys.stderr)
        return int(error.code)
    except OSError as error:  # a bucket's too
        print(error, file=sys.stderr)
        return int(ExitCode.INVALID_CONFIG)
    return int(ExitCode.DONE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m trainer fetch", allow_abbrev=False, description=_DESCRIPTION)
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/NAME-RUNID; gs:// too")
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="where the copies go")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="only these, such as 'logs/*'")
    parser.add_argument("--all", action="store_true", help="checkpoints, inputs and compiled programs too")
    parser.add_argument("--list", action="store_true", help="list the files, copy none")
    parser.add_argument("--output", choices=("text", "json", "yaml"), default="text", help="how they are listed")
    parser.add_argument("--print", metavar="PATTERN", help="print the file; of several the one with the highest number")
    parser.add_argument("--tail", type=int, metavar="LINES", help="its last lines")
    return parser


def _fetch(given: argparse.Namespace) -> None:
    run = given.run.rstrip("/")
    found = list(_in_bucket(run) if run.startswith("gs://") else _on_disk(Path(run)))
    if _NAMES.run_json.lstrip("/") not in [entry.path for entry in found]:
        raise _refused(f"{run}: no run folder, it has no run.json; name one that a run printed as it started")
    if given.print is not None:
        _print(_numbered(found, given.print, run).text() or b"", given.tail)
        return
    chosen = [entry for entry in found if _is_wanted(entry.path, given.only, given.all)]
    if not chosen:
        raise _refused(f"{run}: holds nothing that matches {' or '.join(given.only)}; --list --all shows what it holds")
    if given.list:
        _list(chosen, given.output)
    elif given.folder is None:
        raise _refused("FOLDER: is required; say where the copies go, or --list")
    else:
        _copy(chosen, given.folder)


def _on_disk(run: Path) -> Iterator[Entry]:
    for path in sorted(run.rglob("*")):
        if path.is_file():
            name = path.relative_to(run).as_posix()
            yield Entry(name, path.stat().st_size, partial(shutil.copy2, path), path.read_bytes)


def _in_bucket(run: str) -> Iterator[Entry]:
    from trainer import bucket

    for one in bucket.listing(f"{run}/"):
        if not one.uri.endswith("/"):
            name, text = one.uri.removeprefix(f"{run}/"), partial(bucket.read, one.uri)
            yield Entry(name, one.size, partial(bucket.download, one.uri), text)


def _is_wanted(path: str, only: Sequence[str], everything: bool) -> bool:
    if only:
        return any(fnmatchcase(path, pattern) or path.startswith(f"{pattern.rstrip('/')}/") for pattern in only)
    return everything or not path.startswith(LARGE)


def _numbered(found: Sequence[Entry], pattern: str, run: str) -> Entry:
    """`attempt-10` comes after `attempt-9`."""
    matching = [entry for entry in found if fnmatchcase(entry.path, pattern)]
    if not matching:
        raise _refused(f"{run}: holds no {pattern}; `python -m trainer fetch {run} --list` shows what it holds")
    return max(matching, key=lambda entry: [int(digits) for digits in re.findall(r"\d+", entry.path)])


def _print(text: bytes, tail: int | None) -> None:
    lines = text.splitlines(keepends=True)
    sys.stdout.buffer.writelines(lines if tail is None else lines[max(0, len(lines) - tail) :])
    sys.stdout.buffer.flush()


def _list(chosen: Sequence[Entry], output: str) -> None:
    data = [{"path": entry.path, "bytes": entry.size} for entry in chosen]
    if output == "text":
        for entry in chosen:
            print(f"{entry.size:>14,}  {entry.path}")
    else:
        print(json.dumps(data, indent=2) if output == "json" else dump_document(data).rstrip())


def _copy(chosen: Sequence[Entry], folder: Path) -> None:
    copied = 0
    for entry in chosen:
        if ".." in entry.path.split("/"):  # an object's name may be anything
            raise _refused(f"{entry.path}: would lie outside of {folder}; leave it out with --only")
        target = folder / entry.path
        if target.is_file() and target.stat().st_size == entry.size:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        entry.copy(target)
        copied += 1
    size = sum(entry.size for entry in chosen)
    print(f"{folder}: {len(chosen)} files, {size:,} bytes; {copied} of them new")


def _refused(message: str) -> RunError:
    return RunError(ExitCode.INVALID_CONFIG, message)
