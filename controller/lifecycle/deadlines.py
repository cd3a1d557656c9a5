"""How long there is time: to start, to run, to be kept; and how long is waited until a start is tried again. Pure.

In: what was observed and the ledger. Out: seconds that are left, at most 0 where the time is over, None without limit.
"""

from controller.grpojob import LifecycleSpec
from controller.lifecycle.conditions import Reason
from controller.lifecycle.observed import Observed, conditions_of, is_going, parse_time
from controller.lifecycle.waiting import running
from controller.statustypes import AttemptsStatus, GRPOJobStatus

FIRST_BACK_OFF, LONGEST_BACK_OFF = 30.0, 600.0


def startup_left(observed: Observed, lifecycle: LifecycleSpec, attempts: AttemptsStatus) -> float | None:
    """Until every pod of the attempt must run. None too where all do, or where the attempt is already ending."""
    job_set, deadline = observed.job_set, lifecycle.startup_deadline_seconds
    if deadline is None or job_set is None or is_going(job_set):
        return None
    pods = observed.pods_of(observed.restart)
    if running(observed).status == "True" or any(pod.over or pod.asked for pod in pods):
        return None
    resumed = conditions_of(job_set).get("Suspended", {})
    times = [job_set["metadata"]["creationTimestamp"]]
    times += [resumed["lastTransitionTime"]] if resumed.get("status") == "False" else []
    times += [one.time for one in attempts.last if one.job_set_uid == observed.job_set_uid]
    return deadline - min(_seconds_since(observed, time) for time in times if time)


def active_left(observed: Observed, lifecycle: LifecycleSpec, status: GRPOJobStatus) -> float | None:
    """Until the job must have ended, counted from its start or from when it was resumed."""
    deadline = lifecycle.active_deadline_seconds
    if deadline is None or status.start_time is None:
        return None
    return deadline - _seconds_since(observed, status.start_time)


def kept_left(observed: Observed, lifecycle: LifecycleSpec, status: GRPOJobStatus) -> float | None:
    """Until a job that has ended is deleted."""
    kept = lifecycle.ttl_seconds_after_finished
    if kept is None or status.completion_time is None:
        return None
    return kept - _seconds_since(observed, status.completion_time)


def back_off_left(observed: Observed, attempts: AttemptsStatus) -> float:
    """After starts that did not come about: longer each time, until one does."""
    misses = 0
    for attempt in reversed(attempts.last):
        if attempt.reason != Reason.STARTUP_DEADLINE.word:
            break
        misses += 1
    last = attempts.last[-1].time if misses else None
    if last is None:
        return 0.0
    wait: float = min(FIRST_BACK_OFF * 2 ** (misses - 1), LONGEST_BACK_OFF)
    return wait - _seconds_since(observed, last)


def _seconds_since(observed: Observed, time: str) -> float:
    moment = parse_time(time)
    return 0.0 if moment is None else (observed.now - moment).total_seconds()
