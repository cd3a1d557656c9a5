"""Which checkpoints of a folder count: each tells by a marker, written last, that it is whole and what it holds.

In: the folder of a run's checkpoints, one subfolder a step. Out: markers. It refuses to know what was saved, and JAX.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from etils import epath

from trainer.contract.exits import ExitCode, RunError

log = logging.getLogger("trainer")

FORMAT = 1
"""The format of a checkpoint that is written here, and the newest that is read."""

MARKER = "committed.json"


class DamagedError(Exception):
    """A checkpoint that was committed, and is no longer what it was."""


@dataclass(frozen=True, slots=True)
class Marker:
    """`cursor` counts the questions drawn so far, of data with the digest `data`.

    `score` is the metric of `checkpoint.best`, where the step was evaluated. `files` are the sizes in bytes of all
    files of the checkpoint, by their path inside it. `base` is the fingerprint of the frozen model whose adapters these
    are.
    """

    step: int
    cursor: int
    data: str
    score: float | None
    files: dict[str, int]
    base: str | None = None


def commit(checkpoint: epath.Path, marker: Marker) -> None:
    """From now on the checkpoint counts: its marker appears whole or not at all."""
    replacement = checkpoint / (MARKER + ".new")
    replacement.write_text(json.dumps({"format": FORMAT} | asdict(marker), indent=2) + "\n")
    replacement.replace(checkpoint / MARKER)


def sizes(checkpoint: epath.Path) -> dict[str, int]:
    """Bytes of every file below `checkpoint` but its marker, by path."""
    found = {path.relative_to(checkpoint).as_posix(): path.stat().length for path in _files(checkpoint)}
    return {name: size for name, size in sorted(found.items()) if not name.startswith(MARKER)}


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        yield from _files(path) if path.is_dir() else (path,)


def committed_steps(folder: epath.Path) -> list[int]:
    """The steps whose checkpoint was committed, in order; what a killed process left half written is not among them."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit() and (path / MARKER).exists())


def read_marker(checkpoint: epath.Path) -> Marker:
    """Raises DamagedError where it cannot be read, RunError CONTRACT_VERSION where a later trainer wrote it."""
    try:
        body = json.loads((checkpoint / MARKER).read_text())
        version = body.pop("format")
        newer = version > FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{MARKER} cannot be read ({error})") from None
    if newer:
        raise RunError(
            ExitCode.CONTRACT_VERSION,
            f"{checkpoint}: its format {version} must be at most {FORMAT}, which this trainer reads; "
            "use the trainer image that wrote it",
        )
    try:
        return Marker(**body)
    except TypeError as error:
        raise DamagedError(f"{MARKER} cannot be read ({error})") from None


def read_whole(checkpoint: epath.Path) -> Marker:
    """The marker of a checkpoint whose files all have the size that they had. Raises as `read_marker` does."""
    marker, found = read_marker(checkpoint), sizes(checkpoint)
    for name, size in marker.files.items():
        if name not in found:
            raise DamagedError(f"{name} is missing")
        if found[name] != size:
            raise DamagedError(f"{name} has {found[name]} bytes, and had {size}")
    return marker


def readable_markers(folder: epath.Path) -> Iterator[Marker]:
    """The markers below `folder` that can be read, in order of their steps."""
    for step in committed_steps(folder):
        with suppress(DamagedError, RunError):
            yield read_marker(folder / str(step))


def remove(checkpoint: epath.Path) -> None:
    """Delete one checkpoint: its marker first, so that a half deleted one does not count."""
    (checkpoint / MARKER).unlink(missing_ok=True)
    checkpoint.rmtree()


def remove_uncommitted(folder: epath.Path) -> None:
    """Delete what no marker stands for. A bucket has no empty folders."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if not (path.name.isdigit() and (path / MARKER).exists()):
            path.rmtree() if path.is_dir() else path.unlink()


def superfluous(markers: list[Marker], keep: int) -> list[int]:
    """The steps to delete: all but the newest `keep`, and the first of those with the highest score."""
    newest = {marker.step for marker in markers[-keep:]}
    scored = [marker for marker in markers if marker.score is not None]
    best = max(scored, key=lambda marker: (marker.score, -marker.step), default=None)
    return [marker.step for marker in markers if marker.step not in newest and marker is not best]
