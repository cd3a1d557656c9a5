"""How far a run is, and whether it moves: what the trainer's reports say. Pure.

In: the last report of the attempt under way. Out: the condition `Progressing`, the status's progress and checkpoint.
A report that does not come restarts nothing; only one that says that nothing moved may.
"""

from typing import Any, NamedTuple

from controller.grpojob import GRPOJob
from controller.lifecycle.conditions import Observation, Reason
from controller.lifecycle.observed import Observed, Report, format_time
from controller.statustypes import CheckpointStatus, GRPOJobStatus, ProgressStatus

SILENCE_SECONDS = 120.0
"""Reports come every few seconds: after so long without one nothing is known."""


class Progress(NamedTuple):
    """The condition, and after how many seconds time alone may change it."""

    observation: Observation
    again: tuple[float, ...]


def observe_progress(observed: Observed, job: GRPOJob, runs: bool) -> Progress:
    if not runs:
        return Progress(Observation("Progressing", "Unknown", Reason.NOT_RUNNING), ())
    report = _current(observed)
    if report is None or report.age_seconds >= SILENCE_SECONDS:
        return Progress(Observation("Progressing", "Unknown", Reason.NO_REPORTS), ())
    patience = _patience(report, job)
    limit = patience if report.silent_seconds < patience else 2 * patience
    still = max(0.0, limit - report.silent_seconds - report.age_seconds)
    again = (min(SILENCE_SECONDS - report.age_seconds, still) + 1.0,)
    if report.silent_seconds >= patience:
        text = f"nothing was finished for {patience:.0f} s (progressDeadlineSeconds), at step {report.step}"
        return Progress(Observation("Progressing", "False", Reason.STALLED, text), again)
    return Progress(Observation("Progressing", "True", Reason.REPORTING), again)


def stalled(observed: Observed, job: GRPOJob) -> str | None:
    """Why an attempt is given up: reports arrived for twice the trainer's own deadline, and its heartbeat stood still.

    The trainer's watchdog acts at the deadline itself; where it cannot, this does.
    """
    report = _current(observed)
    if report is None or report.silent_seconds < 2 * _patience(report, job):
        return None
    return f"the heartbeat stood still for twice {_patience(report, job):.0f} s, at step {report.step}"


def progressed(observed: Observed, old: GRPOJobStatus) -> dict[str, Any]:
    report = _current(observed)
    if report is None:
        return {}
    known = old.progress
    moved = known is None or known.step != report.step
    return {
        "progress": ProgressStatus(
            step=report.step,
            total_steps=report.total_steps,
            display=f"{report.step}/{report.total_steps}",
            reward_mean=_rounded(report.reward_mean),
            tokens_per_second_per_chip=_rounded(report.tokens_per_second_per_chip),
            eta=clock(report.eta_seconds),
            last_step_time=format_time(observed.now) if moved or known is None else known.last_step_time,
        )
    }


def checkpointed(observed: Observed) -> dict[str, Any]:
    report = _current(observed)
    if report is None or report.checkpoint_step is None:
        return {}
    return {"checkpoint": CheckpointStatus(last_step=report.checkpoint_step)}


def clock(seconds: float | None) -> str | None:
    """`2h05m`, `7m30s`: two places are enough of a guess."""
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s"


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")


def _current(observed: Observed) -> Report | None:
    """The report, where it is of the attempt under way and not of one before."""
    report = observed.report
    of_now = report is not None and (report.job_set_uid, report.restart) == (observed.job_set_uid, observed.restart)
    return report if of_now else None


def _patience(report: Report, job: GRPOJob) -> float:
    """How long the trainer's own watchdog lets the heartbeat stand still."""
    return max(report.patience_seconds or 0.0, job.runner.config.progress_deadline_seconds)
