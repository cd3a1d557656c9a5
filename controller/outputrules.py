"""The rules of where a run's folder lies in a cluster: what must outlive a pod must not lie in it.

In: a job as read, and its number of hosts. Out: violations of `shared-output`, and warnings. It knows no disk.
"""

from collections.abc import Iterator
from posixpath import join, normpath

from controller import names, podrules
from controller.grpojob import GRPOJob
from trainer.contract.violations import Violation, shown

OUTPUT = "spec.output.uri"
CADENCE = "spec.checkpoint.everySteps"
VOLUME = (
    "gs://BUCKET/PATH, or a path on a volume that all hosts share (persistentVolumeClaim, nfs or csi in spec.volumes)"
)


def check_output(job: GRPOJob, hosts: int | None) -> Iterator[Violation]:
    """Rule shared-output: checkpoints have a place, on one disk for all hosts; any output has a place to be written."""
    if not job.runner.knows("output.uri") or not job.knows("volumes") or not job.knows("volume_mounts"):
        return
    uri, saves = job.runner.config.output.uri, _saves(job)
    if uri is None:
        if saves:
            yield Violation(
                "shared-output",
                OUTPUT,
                None,
                f"null leaves checkpoints in the pods, which they are to outlive; use {VOLUME}",
            )
    elif uri.startswith("gs://"):
        return
    elif saves and hosts is not None and hosts > 1 and not _lies_on(uri, podrules.persistent_mounts(job)):
        message = f"{shown(uri)} is another folder on each of {hosts} hosts, and all must see one; use {VOLUME}"
        yield Violation("shared-output", OUTPUT, uri, message)
    elif not _lies_on(uri, (*podrules.writable_mounts(job), *podrules.MOUNT_PATHS)):
        message = f"{shown(uri)} lies on no volume, and the container's own files are read-only; use {VOLUME}"
        yield Violation("shared-output", OUTPUT, uri, message)


def output_warnings(job: GRPOJob) -> Iterator[Violation]:
    """What a run loses with its pods, where that is allowed."""
    if job.runner.knows("output.uri", "checkpoint.every_steps"):
        uri = job.runner.config.output.uri
        if uri is None:
            message = f"null keeps the run folder in the pods, and nothing of it survives them; use {VOLUME}"
            yield Violation("shared-output", OUTPUT, None, message)
        elif not uri.startswith("gs://") and not _lies_on(uri, podrules.persistent_mounts(job)):
            message = f"{shown(uri)} lies in the pod, and does not survive it; use {VOLUME}"
            yield Violation("shared-output", OUTPUT, uri, message)
        if not _saves(job) and (why := _may_be_stopped(job)):
            message = f"0 with {why}: a run that is stopped starts again from step 0; give a number of steps"
            yield Violation("shared-output", CADENCE, 0, message)


def _saves(job: GRPOJob) -> bool:
    return job.runner.knows("checkpoint") and job.runner.config.checkpoint.saves


def _may_be_stopped(job: GRPOJob) -> str | None:
    if job.spec.tpu is not None and job.spec.tpu.capacity.type == "Spot":
        return "Spot capacity"
    return "a queue" if job.spec.queue is not None else None


def _lies_on(uri: str, mounts: tuple[str, ...]) -> bool:
    """Whether a path, relative to the pod's working folder, lies on or below one of the mounts."""
    path = normpath(join(names.WORKING_FOLDER, uri))
    return any(f"{path}/".startswith(f"{mount.rstrip('/')}/") for mount in mounts)
