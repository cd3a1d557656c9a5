"""Runs for tests: a small RunConfig, and its processes started as a pod's would be."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainer.contract.exits import Cause
from trainer.contract.process import ProcessConfig
from trainer.contract.run import Machine, RunConfig, resolve_run
from trainer.contract.runner import merge
from trainer.contract.violations import Spelling
from trainer.metrics import MetricsFile

BASE = {
    "steps": 3,
    "data": {"overlong": "error"},
    "rollout": {"batch_size": 32, "num_pre_q": 4, "global_length": 32, "max_length_sample": 16},
    "optimizer": {"learning_rate": 1e-3},
    "rewards": [{"python": "reward_samples:letters"}],
}


def sums(path: Path, count: int = 24) -> Path:
    """A JSONL file of sums whose prompts differ in length."""
    rows = [{"question": f"{n} + {n * n} =", "answer": f"#### {n + n * n}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def resolved(model: Path, data: Path, output: Path, processes: int, devices: int, *sets: str, **tree: Any) -> RunConfig:
    """The RunConfig of `BASE` with whole sections replaced by `tree` and values by `sets`."""
    files = {"train": str(data), "eval": str(data), **BASE["data"]}
    text = yaml.safe_dump({**BASE, "model_path": str(model), "data": files, "output": {"uri": str(output)}, **tree})
    machine = Machine(processes, devices, hosts=processes, slices=1, kind="cpu")
    resolution = resolve_run(merge(text, sets, "test"), machine, "tiny", Spelling.RUNNER)
    assert resolution.run is not None, resolution.violations
    return resolution.run


@dataclass(frozen=True)
class Ended:
    """How one process ended; `cause` is what it wrote into its termination log."""

    code: int
    out: str
    err: str
    cause: Cause | None

    @property
    def fingerprint(self) -> str:
        """Of the parameters, as the last line of a run that reached its end tells it."""
        return self.out.rpartition("fingerprint of the parameters ")[2].split()[0]


class Launched:
    """The processes of one attempt."""

    def __init__(
        self,
        run: RunConfig,
        scratch: Path,
        run_id: str = "0123abcd",
        attempt: int = 0,
        run_json: str | None = None,
        **environ: str,
    ):
        self.run, self.run_id = run, run_id
        scratch.mkdir(exist_ok=True)
        (scratch / "run.json").write_text(run_json or run.to_json())
        port = free_port()
        self._logs = [scratch / f"termination-{index}" for index in range(run.batch.processes)]
        self.processes = []
        for index, log in enumerate(self._logs):
            log.unlink(missing_ok=True)
            identity = ProcessConfig(run, run_id, index, f"127.0.0.1:{port}", attempt).to_environment()
            own = {
                "GRPO_TERMINATION_LOG": str(log),
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[2]))),
                "HF_HUB_OFFLINE": "1",
                # As in a pod, which has no token to ask the API server with.
                "KUBERNETES_SERVICE_HOST": "10.0.0.1",
                "KUBERNETES_SERVICE_PORT": "443",
            }
            command = [sys.executable, "-m", "trainer", "--run-config", str(scratch / "run.json")]
            self.processes.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **identity, **own, **environ},
                    cwd=scratch,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def wait(self, seconds: float = 600) -> list[Ended]:
        try:
            told = [process.communicate(timeout=seconds) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        causes = [Cause.from_json(log.read_text()) if log.exists() else None for log in self._logs]
        codes = [process.returncode for process in self.processes]
        return [Ended(code, *streams, cause) for code, streams, cause in zip(codes, told, causes, strict=True)]

    def finish(self) -> list[Ended]:
        """Wait for a run that is to succeed."""
        ended = self.wait()
        assert [one.code for one in ended] == [0] * len(ended), [one.out + one.err for one in ended]
        return ended

    @property
    def folder(self) -> Path:
        return Path(ProcessConfig(self.run, self.run_id, 0, None, 0).folder.root)

    @property
    def metrics(self) -> list[dict[str, float]]:
        return MetricsFile(self.folder / "metrics.jsonl").read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
