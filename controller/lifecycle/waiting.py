"""Why a job does not run yet, in one line: what Kueue, the scheduler, the autoscaler or the kubelet say of it. Pure.

In: what was observed. Out: observations of `Admitted`, `Provisioned` and `Running`. It refuses to know what is done
about it.
"""

from collections import Counter
from collections.abc import Sequence

from controller import names
from controller.lifecycle.conditions import Observation, Reason
from controller.lifecycle.observed import Observed, Pod, conditions_of

QUEUE_CONDITIONS = ("Evicted", "QuotaReserved", "Admitted")
LONGEST_LINE = 1024


def admission(observed: Observed, queue: str | None) -> Observation:
    """Whether Kueue lets the job run; its own words where it does not."""
    if queue is None:
        return Observation("Admitted", "True", Reason.NO_QUEUE)
    if observed.job_set is not None and not observed.held:
        return Observation("Admitted", "True", Reason.ADMITTED, f"admitted through queue {queue}")
    told = _of_workload(observed)
    return Observation(
        "Admitted", "False", Reason.QUEUED, told or f"waits in queue {queue}; Kueue has not answered yet"
    )


def eviction(observed: Observed) -> str:
    """What Kueue says of the eviction that has just been seen."""
    evicted = conditions_of(observed.workload or {}).get("Evicted", {})
    if evicted.get("status") == "True":
        return _line([": ".join((evicted.get("reason", ""), evicted.get("message", "")))])
    return Reason.EVICTED.meaning


def _of_workload(observed: Observed) -> str:
    conditions = conditions_of(observed.workload or {})
    for kind in QUEUE_CONDITIONS:
        told = conditions.get(kind, {})
        waits = told.get("status") == ("True" if kind == "Evicted" else "False")
        if waits and told.get("message"):
            return _line([f"{told.get('reason', kind)}: {told['message']}"])
    return ""


def provision(observed: Observed) -> Observation:
    """Whether every pod of the attempt under way has a node."""
    pods = _present(observed)
    wanted = observed.slices * observed.hosts
    placed = [pod for pod in pods if pod.scheduled or pod.phase != "Pending"]
    if len(placed) >= wanted:
        return Observation("Provisioned", "True", Reason.PROVISIONED, f"{wanted} of {wanted} pods have a node")
    head = f"{len(placed)} of {wanted} pods have a node{_missing_slices(observed, placed)}"
    blocked = [pod for pod in pods if pod.unschedulable and not pod.scheduled]
    if blocked:
        text = _line([head, f"{blocked[0].name}: {blocked[0].unschedulable}", *observed.notes[-1:]])
        return Observation("Provisioned", "False", Reason.UNSCHEDULABLE, text)
    return Observation("Provisioned", "False", Reason.WAITING_FOR_PODS, _line([head, *observed.notes[-1:]]))


def running(observed: Observed) -> Observation:
    """Whether the trainer runs in every pod of the attempt under way."""
    pods = _present(observed)
    wanted = observed.slices * observed.hosts
    up = [pod for pod in pods if pod.runs or pod.phase == "Succeeded"]
    if len(up) >= wanted:
        return Observation("Running", "True", Reason.RUNNING, f"{wanted} of {wanted} pods run")
    head = f"{len(up)} of {wanted} pods run"
    blocked = [pod for pod in pods if pod.waiting and not pod.over]
    if blocked:
        text = _line([head, f"{blocked[0].name}: {blocked[0].waiting}"])
        return Observation("Running", "False", Reason.CONTAINERS_WAITING, text)
    if observed.notes and all(pod.scheduled for pod in pods):
        return Observation("Running", "False", Reason.CONTAINERS_WAITING, _line([head, observed.notes[-1]]))
    reason = Reason.PODS_STARTING if pods else Reason.NOT_RUNNING
    return Observation("Running", "False", reason, head)


def wait_notes(observed: Observed) -> tuple[Pod, ...]:
    """The pods whose events would tell more: those without a node, and those whose container is not made."""
    return tuple(pod for pod in _present(observed) if pod.phase == "Pending" and not pod.over)


def _present(observed: Observed) -> tuple[Pod, ...]:
    return tuple(pod for pod in observed.pods_of(observed.restart) if not pod.gone and not pod.asked)


def _missing_slices(observed: Observed, placed: Sequence[Pod]) -> str:
    """` (slice 1: 0 of 4)`, for slices that are not whole, where there are several."""
    if observed.slices == 1:
        return ""
    there = Counter(pod.slice_index for pod in placed)
    lacking = [index for index in range(observed.slices) if there[index] < observed.hosts]
    shown = [f"{names.REPLICATED_JOB} {index}: {there[index]} of {observed.hosts}" for index in lacking[:4]]
    more = ["…"] if len(lacking) > len(shown) else []
    return f" ({', '.join([*shown, *more])})"


def _line(parts: Sequence[str]) -> str:
    text = "; ".join(" ".join(part.split()) for part in parts if part)
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 2]} …"
