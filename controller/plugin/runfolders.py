"""Where a job's run folder is, and how it is read: the trainer opens buckets and disks, as a subprocess.

In: a GRPOJob. Out: an address, or `Trouble` with the reason why nothing can be read from here.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller.plugin.trouble import Exit, Trouble
from trainer.contract.runfolder import RunFolder

Body = dict[str, Any]
BUCKET = "gs://"


def kept_in(job: Body) -> str | None:
    """The address of the run folder as the job's pods see it, None where nothing outlives them or none was begun."""
    status = job.get("status") or {}
    if not status.get("runId") or (job["spec"].get("output") or {}).get("uri") is None:
        return None
    return RunFolder.of(status["outputUri"], job["metadata"]["name"], status["runId"]).root


def address(job: Body, output_uri: str | None) -> str:
    """The run folder as this machine sees it; `output_uri` is where the job's `output.uri` is here."""
    name, root = job["metadata"]["name"], kept_in(job)
    if root is None:
        if not (job.get("status") or {}).get("runId"):
            raise Trouble(f"{name} has no run folder yet; it is {_phase(job)}", Exit.FAILED)
        fix = "give spec.output.uri a bucket or a volume in the next job (kubectl grpo clone)"
        raise Trouble(f"{name} keeps no run folder, because its spec.output.uri is null; {fix}", Exit.FAILED)
    if output_uri is not None:
        root = f"{output_uri.rstrip('/')}/{root.rpartition('/')[2]}"
    if not root.startswith(BUCKET) and not Path(root).is_dir():
        lies = f"the run folder of {name}, {root}, is not on this machine"
        raise Trouble(f"{lies}; mount its volume here, and say where spec.output.uri is: --output-uri", Exit.FAILED)
    return root


def read(*arguments: str) -> int:
    """Run `python -m trainer ARGUMENTS...`, whose words and exit code are ours."""
    command: Sequence[str] = (sys.executable, "-m", "trainer", *arguments)
    return subprocess.run(command, check=False).returncode


def _phase(job: Body) -> str:
    return str((job.get("status") or {}).get("phase") or "Pending")
