"""The layout of a run folder, `<output.uri>/<name>-<run id>/`. Only names; nothing here touches a disk.

Where it lies in a bucket, a process writes into a spool on its own disk, which is copied there; checkpoints, compiled
programs and inputs go there by themselves.
"""

from dataclasses import dataclass

LAYOUT_VERSION = 1
RUN_ID_LENGTH = 8


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths below one run's folder, as strings so that `gs://` works as well as a local path.

    `root` is where the folder stays; `spool`, where that is a bucket, is this process's own folder to write in.
    """

    root: str
    spool: str | None = None

    @classmethod
    def of(cls, output_uri: str, name: str, run_id: str, spool: str | None = None) -> "RunFolder":
        return cls(f"{output_uri.rstrip('/')}/{name}-{run_id[:RUN_ID_LENGTH]}", spool)

    def _below(self, *parts: str) -> str:
        return "/".join((self.here, *parts))

    @property
    def here(self) -> str:
        """Where this process writes and reads files."""
        return self.root if self.spool is None else self.spool

    def told(self, path: str) -> str:
        """A path below `here` as it will be found later."""
        return self.root + path.removeprefix(self.here)

    @property
    def run_json(self) -> str:
        return self._below("run.json")

    @property
    def metrics(self) -> str:
        return self._below("metrics.jsonl")

    @property
    def completions(self) -> str:
        return self._below("completions")

    @property
    def evaluations(self) -> str:
        return self._below("eval")

    @property
    def non_finite(self) -> str:
        return self._below("non-finite")

    @property
    def checkpoints(self) -> str:
        return f"{self.root}/checkpoints"

    @property
    def inputs(self) -> str:
        return f"{self.root}/inputs"

    @property
    def export(self) -> str:
        return self._below("export")

    @property
    def stacks(self) -> str:
        return self._below("stacks")

    @property
    def compile_cache(self) -> str:
        return f"{self.root}/compile-cache"

    def log(self, attempt: int, process: int) -> str:
        return self._below("logs", f"attempt-{attempt}", f"process-{process}.log")
