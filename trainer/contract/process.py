"""Station 6, enter: who one process is.

In: run.json and a few environment variables, the same in a pod and under `grpoctl run`. Out: `ProcessConfig`.
Refuses to know JAX and the cluster that set the variables.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trainer.contract.exits import ExitCode, RunError
from trainer.contract.identity import identity
from trainer.contract.run import RunConfig
from trainer.contract.runfolder import RUN_ID_LENGTH, RunFolder
from trainer.contract.violations import shown

ENV_RUN_CONFIG = "GRPO_RUN_CONFIG"
ENV_RUN_ID = "GRPO_RUN_ID"
ENV_SLICE_INDEX = "GRPO_SLICE_INDEX"
ENV_HOST_INDEX = "GRPO_HOST_INDEX"
ENV_COORDINATOR = "GRPO_COORDINATOR_ADDRESS"
ENV_ATTEMPT = "GRPO_ATTEMPT"
ENV_ATTEMPTS_BEFORE = "GRPO_ATTEMPTS_BEFORE"
"""How many attempts earlier JobSets of the same job made: each JobSet counts its own from 0."""
ENV_TERMINATION_LOG = "GRPO_TERMINATION_LOG"
COORDINATOR_PORT = 8482


class BadEnvironmentError(RunError):
    """A variable of the process's identity that is missing or wrong: no restart heals it."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(
            ExitCode.INVALID_CONFIG,
            f"{name}: {problem}; the JobSet and `grpoctl run` set it, so start the process by one of them",
        )


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """One process of a run. `coordinator` is `host:port`, and None where the run has one process.

    `spool` is a folder on this machine's disk to write in, where the run folder lies in a bucket.
    """

    run: RunConfig
    run_id: str
    process_index: int
    coordinator: str | None
    attempt: int
    spool: str | None = None

    @property
    def folder(self) -> RunFolder:
        return RunFolder.of(self.run.output_uri, self.run.name, self.run_id, self.spool)

    @property
    def starts_over(self) -> bool:
        """Whether what the folder holds of this run is forgotten; a restart goes on from the attempt that forgot it."""
        return self.run.checkpoint.resume == "Never" and self.attempt == 0

    @property
    def slice_index(self) -> int:
        return self.process_index // self.run.batch.hosts

    @property
    def host_index(self) -> int:
        """The index of this host inside its slice."""
        return self.process_index % self.run.batch.hosts

    @classmethod
    def from_environment(cls, run: RunConfig, environ: Mapping[str, str]) -> "ProcessConfig":
        """Process index = slice index x hosts per slice + host index, as rendered by downward API.

        A run of one process needs no variable at all. Raises BadEnvironmentError.
        """
        batch = run.batch
        many = batch.processes > 1
        slice_index = _index(environ, ENV_SLICE_INDEX, batch.slices, required=many)
        host_index = _index(environ, ENV_HOST_INDEX, batch.hosts, required=many)
        return cls(
            run=run,
            run_id=environ.get(ENV_RUN_ID) or identity(run)[:RUN_ID_LENGTH],
            process_index=slice_index * batch.hosts + host_index,
            coordinator=_coordinator(environ) if many else None,
            attempt=_index(environ, ENV_ATTEMPT, None, required=False)
            + _index(environ, ENV_ATTEMPTS_BEFORE, None, required=False),
        )

    def to_environment(self) -> dict[str, str]:
        """The variables that give this process back, with the same run."""
        identity = {
            ENV_RUN_ID: self.run_id,
            ENV_SLICE_INDEX: str(self.slice_index),
            ENV_HOST_INDEX: str(self.host_index),
            ENV_ATTEMPT: str(self.attempt),
            ENV_ATTEMPTS_BEFORE: "0",
        }
        return identity if self.coordinator is None else {**identity, ENV_COORDINATOR: self.coordinator}


def _index(environ: Mapping[str, str], name: str, count: int | None, *, required: bool) -> int:
    """A whole number below `count`; an empty variable is a missing one, and 0 where nothing is required."""
    text = environ.get(name, "").strip()
    if not text and not required:
        return 0
    if not text:
        raise BadEnvironmentError(name, "is missing, and a run of several processes needs it")
    if not (text.isascii() and text.isdigit()) or (count is not None and int(text) >= count):
        limit = "" if count is None else f" from 0 to {count - 1}"
        raise BadEnvironmentError(name, f"{shown(text)} must be a whole number{limit}")
    return int(text)


def _coordinator(environ: Mapping[str, str]) -> str:
    text = environ.get(ENV_COORDINATOR, "").strip()
    if not text:
        raise BadEnvironmentError(ENV_COORDINATOR, "is missing, and a run of several processes needs it")
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise BadEnvironmentError(ENV_COORDINATOR, f"{shown(text)} must be host:port")
    return text
