"""The run folder of a run in a bucket: written below a folder of this machine's disk, and copied to the bucket.

In: files that a process writes, in whatever order. Out: the same files as objects, whole, under the same names. It
refuses to know what they hold.
"""

import logging
import shutil
import tempfile
import threading
from pathlib import Path

from trainer import bucket
from trainer.bucket import BucketError

log = logging.getLogger("trainer")

PERIOD_SECONDS = 10.0
_FIRST = ("run.json", "metrics.jsonl")
"""All that a run needs of an earlier attempt, beside its checkpoints."""
_LAST = ("config.json", "run.json")
"""Who finds one of these looks for the others."""
_UNFINISHED = (".new", ".partial")


class Spool:
    """One process's part of the run folder at `there`, an address of a bucket, written below `here`."""

    def __init__(self, there: str) -> None:
        self.here = Path(tempfile.mkdtemp(prefix="grpo-spool-"))
        self.pulled = False
        self._there = there
        self._copied: dict[Path, tuple[int, int]] = {}
        self._copying = threading.Lock()
        self._ended = threading.Event()

    def pull(self) -> None:
        """Fetch what an earlier attempt left. Raises BucketError."""
        with bucket.blamed("output.uri"):
            for name in _FIRST:
                content = bucket.read(f"{self._there}/{name}")
                if content is not None:
                    (self.here / name).write_bytes(content)
        self.pulled = True

    def start(self) -> None:
        """Copy now and then, from a thread beside the training."""
        threading.Thread(target=self._keep_copying, name="spool", daemon=True).start()

    def push(self, seconds: float = bucket.TRY_SECONDS) -> None:
        """Copy every file that changed since it was copied. BucketError where one cannot be in `seconds`."""
        with self._copying, bucket.blamed("output.uri"):
            for path in sorted(filter(self._is_whole, self.here.rglob("*")), key=_order):
                state = (path.stat().st_mtime_ns, path.stat().st_size)
                if self._copied.get(path) == state:
                    continue
                uri = f"{self._there}/{path.relative_to(self.here).as_posix()}"
                try:
                    bucket.upload(path, uri, seconds)
                except FileNotFoundError:
                    continue  # replaced or removed meanwhile
                self._copied[path] = state

    def close(self) -> None:
        """End the copying and free the disk."""
        self._ended.set()
        with self._copying:
            shutil.rmtree(self.here, ignore_errors=True)

    def _is_whole(self, path: Path) -> bool:
        parts = path.relative_to(self.here).parts
        return path.is_file() and not any(part.startswith(".") or part.endswith(_UNFINISHED) for part in parts)

    def _keep_copying(self) -> None:
        failing = False
        while not self._ended.wait(PERIOD_SECONDS):
            try:
                self.push()
                if failing:
                    log.warning("%s answers again; the run folder is up to date", self._there)
                failing = False
            except BucketError as error:
                if not failing:
                    log.warning("%s; training goes on, and copying is tried again", error)
                failing = True


def _order(path: Path) -> tuple[int, str]:
    return (_LAST.index(path.name) + 1 if path.name in _LAST else 0, str(path))
