"""Which checkpoints of a folder count: each tells by a marker, written last, that it is whole and what it holds.

In: the folder of a run's checkpoints, one subfolder a step. Out: markers. It refuses to know what was saved, and JAX.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from etils import epath

from trainer import bucket
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
    text = json.dumps({"format": FORMAT} | asdict(marker), indent=2) + "\n"
    if _in_bucket(checkpoint):
        bucket.write(str(checkpoint / MARKER), text.encode())
        return
    replacement = checkpoint / (MARKER + ".new")
    replacement.write_text(text)
    replacement.replace(checkpoint / MARKER)


def sizes(checkpoint: epath.Path) -> dict[str, int]:
    """Bytes of every file below `checkpoint` but its marker, by path."""
    return {name: size for name, size in sorted(_files(checkpoint)) if not name.startswith(MARKER)}


def _files(folder: epath.Path) -> Iterator[tuple[str, int]]:
    """Path below `folder` and bytes of each file.

    A bucket is asked by `trainer.bucket`, as in all that follows: by epath, one that is closed looks empty.
    """
    if _in_bucket(folder):
        for found in bucket.listing(f"{folder}/"):
            yield found.uri.removeprefix(f"{folder}/"), found.size
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from ((f"{path.name}/{name}", size) for name, size in _files(path))
        else:
            yield path.name, path.stat().length


def _in_bucket(path: epath.Path) -> bool:
    return bucket.is_uri(str(path))


def committed_steps(folder: epath.Path) -> list[int]:
    """The steps whose checkpoint was committed, in order; what a killed process left half written is not among them."""
    if _in_bucket(folder):
        names = [name.split("/") for name, _ in _files(folder)]
        return sorted(int(name[0]) for name in names if name[0].isdigit() and name[1:] == [MARKER])
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit() and (path / MARKER).exists())


def read_marker(checkpoint: epath.Path) -> Marker:
    """Raises DamagedError where it cannot be read, RunError CONTRACT_VERSION where a later trainer wrote it, and
    BucketError where a bucket does not answer, which is no damage.
    """
    try:
        body = json.loads(_content(checkpoint / MARKER))
        version = body.pop("format")
        newer = version > FORMAT
    except bucket.BucketError:
        raise
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


def _content(path: epath.Path) -> bytes:
    if not _in_bucket(path):
        content: bytes = path.read_bytes()
        return content
    found = bucket.read(str(path))
    if found is None:
        raise FileNotFoundError(f"{path} is missing")
    return found


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
    kept = {str(step) for step in committed_steps(folder)}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in kept:
            path.rmtree() if path.is_dir() else path.unlink()


def superfluous(markers: list[Marker], keep: int) -> list[int]:
    """The steps to delete: all but the newest `keep`, and the first of those with the highest score."""
    newest = {marker.step for marker in markers[-keep:]}
    scored = [marker for marker in markers if marker.score is not None]
    best = max(scored, key=lambda marker: (marker.score, -marker.step), default=None)
    return [marker.step for marker in markers if marker.step not in newest and marker is not best]
