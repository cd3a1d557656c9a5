"""Who one process is: run.json plus a few environment variables, the same in a pod and under `grpoctl run`."""

from collections.abc import Mapping
from dataclasses import dataclass

from trainer.contract.run import RunConfig
from trainer.contract.runfolder import RunFolder

ENV_RUN_CONFIG = "GRPO_RUN_CONFIG"
ENV_RUN_ID = "GRPO_RUN_ID"
ENV_SLICE_INDEX = "GRPO_SLICE_INDEX"
ENV_HOST_INDEX = "GRPO_HOST_INDEX"
ENV_COORDINATOR = "GRPO_COORDINATOR_ADDRESS"
ENV_ATTEMPT = "GRPO_ATTEMPT"
ENV_TERMINATION_LOG = "GRPO_TERMINATION_LOG"
COORDINATOR_PORT = 8482


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """One process of a run. `coordinator` is `host:port`, and None where the run has one process."""

    run: RunConfig
    run_id: str
    process_index: int
    coordinator: str | None
    attempt: int

    @property
    def folder(self) -> RunFolder:
        return RunFolder.of(self.run.output_uri, self.run.name, self.run_id)

    @classmethod
    def from_environment(cls, run: RunConfig, environ: Mapping[str, str]) -> "ProcessConfig":
        """Process index = slice index x hosts per slice + host index, as rendered by downward API."""
        slice_index = int(environ.get(ENV_SLICE_INDEX) or 0)
        host_index = int(environ.get(ENV_HOST_INDEX) or 0)
        many = run.batch.processes > 1
        return cls(
            run=run,
            run_id=environ.get(ENV_RUN_ID) or run.sha256[:8],
            process_index=slice_index * run.batch.hosts + host_index,
            coordinator=environ[ENV_COORDINATOR] if many else None,
            attempt=int(environ.get(ENV_ATTEMPT) or 0),
        )
