"""The same job on other devices: a read job in, the outcome of resolving it for so many local processes out."""

from dataclasses import replace

from controller.grpojob import CpuSpec, GRPOJob
from controller.resolve import Outcome, Resolved, resolve


def replan(job: GRPOJob, was: Resolved, processes: int | None, devices_per_process: int | None) -> Outcome:
    """Resolves the job as `cpu` hosts; what is None stays as it was. The batch rules judge the new plan too."""
    hosts = processes or was.run.batch.processes
    devices = devices_per_process or was.run.batch.devices_per_process
    spec = job.spec.model_copy(update={"tpu": None, "cpu": CpuSpec(hosts=hosts, devices_per_host=devices)})
    return resolve(replace(job, spec=spec), one_machine=True)
