"""Side door: the pods of a rendered JobSet as processes of this machine, without a cluster (`grpoctl run`).

In: a resolved job, and beside it the other objects of its file or a folder with its code. Out: the job's exit code.
Modules, from the top: `run` (attempts, signals, report), `replan` (the same job on other devices), `attempt` (start,
watch, stop), `verdict` (exits to one cause, pure), `sandbox` (volumes to folders), `pods` (JobSet to processes, pure),
`shim` (parent of one process; a program of its own). They know no API server, no JAX and no batch rule.
"""

from controller.local.pods import LocalError
from controller.local.run import Machine, run_job

__all__ = ["LocalError", "Machine", "run_job"]
