"""The judge: what ended each attempt of a run, counted once, against which budget. Pure.

In: the pods of an attempt as they were last seen. Out: one class by precedence, not by time (a victim may end before
its cause is written), and the ledger with it. It refuses to know who restarts: that is the JobSet.
"""

from collections.abc import Iterable
from typing import NamedTuple

from controller.lifecycle.conditions import BY_WORD, Reason, shortened
from controller.lifecycle.observed import Observed, Pod, conditions_of, format_time, parse_time
from controller.statustypes import Attempt, AttemptClass, AttemptsStatus
from trainer.contract.exits import FATAL, Cause, ExitCode

KEPT = 10
PATIENCE_SECONDS = 30.0
"""Pods are told by another stream of events than their JobSet: an end that it told is waited for so long."""

KILLED = 128 + 9
NOT_STARTED = range(125, 129)
"""What container runtimes and shells say of a program that is not there or cannot be run."""
LOST_CONTAINER = "ContainerStatusUnknown"
OUT_OF_MEMORY = "OOMKilled"
LONGEST_MESSAGE = 1024

CODES: dict[int, Reason] = {
    ExitCode.FAILED: Reason.TRAINER_FAILED,
    ExitCode.INVALID_CONFIG: Reason.INVALID_CONFIG,
    ExitCode.CONTRACT_VERSION: Reason.CONTRACT_MISMATCH,
    ExitCode.PLAN_DIFFERS: Reason.PLAN_DIFFERS,
    ExitCode.INPUT_NOT_REACHABLE: Reason.INPUT_NOT_REACHABLE,
    ExitCode.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ExitCode.NON_FINITE: Reason.NON_FINITE,
    ExitCode.STALLED: Reason.STALLED,
    ExitCode.PEER_LOST: Reason.PEER_LOST,
    ExitCode.PREEMPTED: Reason.PREEMPTED,
}
RANKS: tuple[frozenset[Reason], ...] = (
    frozenset(CODES[code] for code in FATAL) | {Reason.FATAL_UNSEEN},
    frozenset({Reason.DISRUPTED}),
    frozenset({Reason.TRAINER_FAILED, Reason.OUT_OF_MEMORY, Reason.STALLED, Reason.CANNOT_START}),
    frozenset({Reason.PREEMPTED}),
    frozenset({Reason.PEER_LOST, Reason.STARTUP_DEADLINE}),
    frozenset({Reason.JOB_SET_DELETED}),
    frozenset({Reason.UNKNOWN}),
)
"""Precedence of what the pods of one attempt tell; docs/adr/0004-exit-codes.md."""
CLASSES: tuple[AttemptClass, ...] = ("Fatal", "Disruption", "Failure") + ("Disruption",) * 4


class Verdict(NamedTuple):
    """Why a job is over, or that it is not."""

    reason: Reason
    message: str


def rank(reason: Reason) -> int:
    return next(place for place, reasons in enumerate(RANKS) if reason in reasons)


def class_of(reason: Reason) -> AttemptClass:
    return CLASSES[rank(reason)]


def reason_of(pod: Pod) -> Reason | None:
    """What one pod's end says, None where it says nothing."""
    code = pod.exit_code
    if code in FATAL:
        return CODES[code]
    if pod.disruption is not None:
        return Reason.DISRUPTED
    if pod.ended_as == OUT_OF_MEMORY or (code == KILLED and not pod.asked and pod.ended_as != LOST_CONTAINER):
        return Reason.OUT_OF_MEMORY
    if code in CODES:
        return CODES[code]
    if code in NOT_STARTED and not pod.asked:
        return Reason.CANNOT_START
    failed = pod.phase == "Failed" or code not in (None, 0) or (pod.gone and pod.phase == "Running")
    return Reason.UNKNOWN if failed else None


def judged(pods: Iterable[Pod], earlier: Attempt | None, job_set_uid: str, restart: int) -> Attempt:
    """One attempt by the pods that are known of it, and by what was known `earlier`: the first of the highest rank."""
    found = [(reason, pod) for pod in pods if (reason := reason_of(pod)) is not None]
    found.sort(key=lambda pair: (rank(pair[0]), pair[1].ended_at or "~"))
    if earlier is not None and (not found or rank(reason_in(earlier)) <= rank(found[0][0])):
        return earlier
    if not found:
        return made(Reason.UNKNOWN, job_set_uid, restart)
    reason, pod = found[0]
    step, message = _told(pod)
    return made(reason, job_set_uid, restart, pod=pod.name, exit_code=pod.exit_code, step=step, message=message)


def made(
    reason: Reason,
    job_set_uid: str,
    restart: int,
    *,
    pod: str | None = None,
    exit_code: int | None = None,
    step: int | None = None,
    message: str = "",
) -> Attempt:
    return Attempt(
        classification=class_of(reason),
        reason=reason.word,
        pod=pod,
        exit_code=exit_code,
        step=step,
        message=shortened(message or reason.meaning, LONGEST_MESSAGE),
        job_set_uid=job_set_uid,
        restart=restart,
    )


def counted(attempts: AttemptsStatus, attempt: Attempt, now: str) -> AttemptsStatus:
    """The ledger with one more attempt, which is never counted again."""
    entry = attempt.model_copy(update={"time": now})
    update: dict[str, object] = {
        "last": (*attempts.last, entry)[-KEPT:],
        "judged": attempt.restart + 1,
        "ending": None,
    }
    if attempt.classification == "Failure":
        update["restarts"] = attempts.restarts + 1
    elif attempt.classification == "Disruption":
        update["disruptions"] = attempts.disruptions + 1
    return attempts.model_copy(update=update)


def evicted(attempts: AttemptsStatus, job_set_uid: str, restart: int, message: str, now: str) -> AttemptsStatus:
    """The ledger with an eviction: it costs nothing, and the same attempt goes on when it is admitted again."""
    entry = Attempt(
        classification="Eviction",
        reason=Reason.EVICTED.word,
        message=shortened(message, LONGEST_MESSAGE),
        job_set_uid=job_set_uid,
        restart=restart,
        time=now,
    )
    update = {"last": (*attempts.last, entry)[-KEPT:], "evictions": attempts.evictions + 1, "ending": None}
    return attempts.model_copy(update=update)


def settled(observed: Observed, attempts: AttemptsStatus) -> AttemptsStatus:
    """The ledger with every attempt of the present JobSet that is over, and what is known of the one that is ending."""
    if observed.job_set is None:
        return attempts
    uid, now = str(observed.job_set["metadata"]["uid"]), format_time(observed.now)
    for restart in range(attempts.judged, observed.restart + 1):
        if restart == observed.restart and observed.held:
            return attempts.model_copy(update={"ending": None})  # its pods were stopped, and it goes on later
        latest = restart >= observed.restart - 1
        pods = observed.pods_of(restart) if latest else ()
        ended = restart < observed.restart or observed.terminal == "Failed"
        attempt = judged(pods, attempts.ending, uid, restart)
        if not ended or (latest and not _is_settled(observed, restart, attempt)):
            seen = attempt if attempts.ending is not None or any(map(reason_of, pods)) else None
            return attempts.model_copy(update={"ending": seen})
        if attempt.reason == Reason.UNKNOWN.word and _was_fatal(observed, restart):
            attempt = made(Reason.FATAL_UNSEEN, uid, restart)
        attempts = counted(attempts, attempt, now)
    return attempts


def _is_settled(observed: Observed, restart: int, attempt: Attempt) -> bool:
    """Whether nothing more can be heard of an attempt that the JobSet gave up.

    A later attempt's pod is told after all of these; and where none comes, as after the last attempt, each of these is
    waited for, but not for ever: some may never have been made.
    """
    if attempt.classification == "Fatal" or observed.terminal == "Completed":
        return True
    pods = observed.pods_of(restart)
    if not all(pod.over for pod in pods):
        return False
    later = observed.pods_of(restart + 1)
    if len(pods) >= observed.slices * observed.hosts or later:
        return True
    return _seconds_since_turn(observed) >= PATIENCE_SECONDS


def _seconds_since_turn(observed: Observed) -> float:
    """Since the JobSet last said that it restarts or fails."""
    conditions = conditions_of(observed.job_set or {})
    told = (parse_time(conditions.get(kind, {}).get("lastTransitionTime")) for kind in ("Failed", "RestartingJobSet"))
    times = [moment for moment in told if moment is not None]
    return (observed.now - max(times)).total_seconds() if times else PATIENCE_SECONDS


def _was_fatal(observed: Observed, restart: int) -> bool:
    """Whether the JobSet gave up by its rule for fatal exit codes, though no pod is left to tell which."""
    failed = conditions_of(observed.job_set or {}).get("Failed", {})
    return restart == observed.restart and failed.get("reason") == "FailJobSetFailurePolicyAction"


def verdict(attempts: AttemptsStatus, max_restarts: int, max_disruptions: int) -> Verdict | None:
    """Why no further attempt is made, where that is so."""
    last = next((one for one in reversed(attempts.last) if one.classification != "Eviction"), None)
    if last is None:
        return None
    if last.classification == "Fatal":
        return Verdict(reason_in(last), explained(last))
    if attempts.restarts > max_restarts:
        return Verdict(Reason.RESTARTS_SPENT, _spent(attempts.restarts, "failure", max_restarts, "maxRestarts", last))
    if attempts.disruptions > max_disruptions:
        text = _spent(attempts.disruptions, "disruption", max_disruptions, "maxDisruptions", last)
        return Verdict(Reason.DISRUPTIONS_SPENT, text)
    return None


def _spent(count: int, noun: str, allowed: int, key: str, last: Attempt) -> str:
    plural = "" if count == 1 else "s"
    return f"{count} {noun}{plural}, and restart.{key} allows {allowed}; the last: {explained(last)}"


def explained(attempt: Attempt) -> str:
    """One sentence: who, how, at which step, and what it said."""
    where = f"{attempt.pod}: " if attempt.pod else ""
    code = "" if attempt.exit_code is None else f", exit code {attempt.exit_code}"
    step = "" if attempt.step is None else f", after step {attempt.step}"
    return f"{where}{attempt.reason}{code}{step}: {attempt.message}"


def reason_in(attempt: Attempt) -> Reason:
    """The reason of an attempt as a member of the table; another version may have written another."""
    return BY_WORD.get(attempt.reason, Reason.UNKNOWN)


def _told(pod: Pod) -> tuple[int | None, str]:
    """The last completed step and the message: of the cause in the termination log, else its last words."""
    try:
        cause = Cause.from_json(pod.message)
    except (ValueError, KeyError, TypeError):
        said = pod.message.strip()[-LONGEST_MESSAGE:]
        return None, "; ".join(part for part in (pod.disruption, said or pod.ended_as) if part)
    return cause.step, cause.message
