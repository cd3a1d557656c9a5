"""The layout of a run folder, `<output.uri>/<name>-<run id>/`. Only names; nothing here touches a disk."""

from dataclasses import dataclass

LAYOUT_VERSION = 1
RUN_ID_LENGTH = 8


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths below one run's folder, as strings so that `gs://` works as well as a local path."""

    root: str

    @classmethod
    def of(cls, output_uri: str, name: str, run_id: str) -> "RunFolder":
        return cls(f"{output_uri.rstrip('/')}/{name}-{run_id[:RUN_ID_LENGTH]}")

    def _below(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

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
        return self._below("checkpoints")

    @property
    def export(self) -> str:
        return self._below("export")

    @property
    def stacks(self) -> str:
        return self._below("stacks")

    @property
    def compile_cache(self) -> str:
        return self._below("compile-cache")

    def log(self, attempt: int, process: int) -> str:
        return self._below("logs", f"attempt-{attempt}", f"process-{process}.log")
