"""What the jobs that hold machines make of them: devices, tokens per second, step and reward. Pure.

In: GRPOJobs. Out: one plain object a job, the largest first.
"""

from collections.abc import Iterable
from typing import Any

from controller.plugin.jobs import phase_of

Body = dict[str, Any]
HOLDING = ("Starting", "Running", "Restarting", "Ending")


def usage_of(found: Iterable[Body]) -> list[Body]:
    rows = [_row(job) for job in found if phase_of(job) in HOLDING and (job.get("status") or {}).get("plan")]
    return sorted(rows, key=lambda row: (-row["devices"], row["namespace"], row["name"]))


def _row(job: Body) -> Body:
    plan, progress = job["status"]["plan"], job["status"].get("progress") or {}
    devices = plan["processes"] * plan["devicesPerProcess"]
    each = progress.get("tokensPerSecondPerChip")
    return {
        "namespace": job["metadata"]["namespace"],
        "name": job["metadata"]["name"],
        "phase": phase_of(job),
        "devices": devices,
        "tokensPerSecondPerChip": each,
        "tokensPerSecond": None if each is None else each * devices,
        "step": progress.get("step"),
        "totalSteps": progress.get("totalSteps"),
        "rewardMean": progress.get("rewardMean"),
        "eta": progress.get("eta"),
    }
