"""Running trainers seen from outside: what each does at this moment, and signals sent while it does it."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from etils import epath
from launching import Launched

from trainer import committed
from trainer.progress import ENV_LEDGER, Entry, Ledger

PHASES = ("rollout", "rewards", "update", "evaluation", "checkpoint")


def until(true: Callable[[], bool], what: str, seconds: float = 600) -> None:
    """Wait for something that must come: nothing here may hang."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s"
        time.sleep(0.002)


class Watched:
    """One process of a run: its supervisor, its worker, and the ledger between them."""

    def __init__(self, supervisor: int) -> None:
        self.supervisor = supervisor
        until(lambda: self._children() != [], "a worker")
        self.worker = self._children()[0]
        self._ledger = -1
        until(self._opened, "a ledger")

    def _children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.supervisor}/task/{self.supervisor}/children").read_text().split()
        ]

    def _opened(self) -> bool:
        """The child's environment is that of its parent until it has become the trainer."""
        environ = Path(f"/proc/{self.worker}/environ").read_bytes().split(b"\0")
        number = next((entry.split(b"=")[1] for entry in environ if entry.startswith(ENV_LEDGER.encode())), None)
        if number is not None:
            self._ledger = os.open(f"/proc/{self.worker}/fd/{int(number)}", os.O_RDONLY)
        return number is not None

    @property
    def entry(self) -> Entry:
        """What the worker wrote last; it is kept when the worker has ended."""
        return Ledger.read(self._ledger)

    @property
    def ended(self) -> bool:
        try:
            return Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    def close(self) -> None:
        os.close(self._ledger)


def send(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def phase_of(entry: Entry, folder: Path) -> str:
    """The phase that a process is in; a checkpoint that is not committed yet counts, whatever is done beside it."""
    if uncommitted(folder):
        return "checkpoint"
    return next((phase for phase in PHASES if entry.doing.startswith(phase)), "between")


def uncommitted(folder: Path) -> bool:
    with suppress(OSError):
        steps = [path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
        return any(not (path / committed.MARKER).exists() for path in steps)
    return False


def newest(launched: Launched) -> int:
    """The last committed step, 0 where there is none; every one that counts must be whole."""
    folder = epath.Path(launched.folder / "checkpoints")
    steps = committed.committed_steps(folder)
    for step in steps:
        committed.read_whole(folder / str(step))
    return steps[-1] if steps else 0
