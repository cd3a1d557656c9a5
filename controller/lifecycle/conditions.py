"""Conditions of a GRPOJob: every reason there is, and how a new observation is laid over the old.

In: what is the case. Out: conditions whose transition times are kept where nothing changed. It decides nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from controller.statustypes import Condition, ConditionType, GRPOJobStatus, Phase

TYPES: tuple[ConditionType, ...] = (
    "Validated",
    "Admitted",
    "Provisioned",
    "Running",
    "Progressing",
    "Suspended",
    "Restarting",
    "Succeeded",
    "Failed",
)
LONGEST_MESSAGE = 8192


class Reason(Enum):
    """Why a condition, an attempt or an event is what it is: its word, what it means, and what one does about it."""

    # Validated
    ACCEPTED = "Accepted", "Every rule holds; what was resolved is frozen in the ConfigMap `status.runConfigName`.", ""
    INVALID_SPEC = (
        "InvalidSpec",
        "Rules of the specification are broken; the message tells each with its fix.",
        "Mend the file until `grpoctl validate` accepts it, delete the job and apply it again.",
    )
    SPEC_CHANGED = (
        "SpecChanged",
        "Parts of the specification that cannot change were changed. They are not taken: the job goes on as it was "
        "accepted.",
        "Set them back, or make another job. The rules of the CRD refuse such changes: is `crds/grpojobs.yaml` "
        "installed as it is?",
    )
    # Admitted
    NO_QUEUE = "NoQueue", "The job names no queue, so nothing has to admit it.", ""
    ADMITTED = "Admitted", "Kueue gave the job its quota.", ""
    QUEUED = (
        "Queued",
        "Kueue holds the job back; the message is Kueue's own.",
        "Wait, or look at the quota: `kubectl describe clusterqueue`, `kubectl get workloads`.",
    )
    EVICTED = (
        "Evicted",
        "Kueue took the quota back. The pods had their grace to save a checkpoint; this costs no budget.",
        "Nothing: the job is queued again, and goes on from its last checkpoint.",
    )
    # Provisioned
    PROVISIONED = "Provisioned", "Every pod has a node.", ""
    JOB_SET_MISSING = (
        "JobSetMissing",
        "The cluster has no JobSet, whose controller makes the pods.",
        "Install it with the command in the message; jobs then go on by themselves.",
    )
    NAME_TAKEN = (
        "NameTaken",
        "An object that is not this job's has the name that its JobSet or ConfigMap needs. It is not touched.",
        "Delete or rename that object, or give the job another name.",
    )
    REFUSED = (
        "Refused",
        "The API server refused the JobSet or the ConfigMap; the message is its own. It is tried again.",
        "Look for a quota, a policy or a webhook of the namespace that the message names.",
    )
    WAITING_FOR_PODS = (
        "WaitingForPods",
        "Some pods do not exist yet.",
        "Look at the JobSet and its Jobs: `kubectl describe jobset,job -l grpo.dev/job=NAME`.",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "Some pods have no node; the message is the scheduler's or the autoscaler's.",
        "Compare accelerator, topology and capacity with the node pools: "
        "`kubectl get nodes -L cloud.google.com/gke-tpu-topology`.",
    )
    BACKING_OFF = "BackingOff", "A start did not come about in time; another is made when the wait is over.", ""
    STARTING = "Starting", "The JobSet is being made.", ""
    # Running
    RUNNING = "Running", "The trainer runs in every pod.", ""
    CONTAINERS_WAITING = (
        "ContainersWaiting",
        "Some containers cannot start: an image that cannot be pulled, a volume that cannot be mounted.",
        "Mend what the message names: image, pull secret, ConfigMap or volume.",
    )
    PODS_STARTING = "PodsStarting", "Some pods are being started.", ""
    NOT_RUNNING = "NotRunning", "No pod runs.", ""
    # Progressing
    REPORTING = "Reporting", "The trainer reports, and its heartbeat advances.", ""
    NO_REPORTS = (
        "NoReports",
        "Nothing was heard of the trainer. That restarts nothing: the run itself may be well.",
        "Look at the pod's log, and at what stands between pods and operator (a NetworkPolicy?).",
    )
    STALLED = (
        "Stalled",
        "Work stands still. At the deadline the trainer's own watchdog ends the attempt; at twice the deadline, if "
        "reports arrive whose heartbeat stands still, the controller does. Spends `restart.maxRestarts`.",
        "Look at the stacks of all threads in the run folder's `stacks/`; give `progressDeadlineSeconds` more room if "
        "the work is only slow.",
    )
    # Suspended
    SUSPENDED = "Suspended", "`spec.suspend` is true: the JobSet is deleted, its pods saved a checkpoint first.", ""
    NOT_SUSPENDED = "NotSuspended", "`spec.suspend` is false.", ""
    # Restarting
    RESTARTING = "Restarting", "An attempt ended, and the next begins from the last checkpoint.", ""
    NOT_RESTARTING = "NotRestarting", "No attempt is ending.", ""
    # Succeeded and Failed
    COMPLETED = "Completed", "Every process ended with exit code 0.", ""
    NOT_FINISHED = "NotFinished", "The job has not ended.", ""
    FINISHED = "Finished", "The job has ended.", ""
    RESTARTS_SPENT = (
        "MaxRestartsReached",
        "The run failed on its own more often than `restart.maxRestarts` allows.",
        "`status.attempts.last` has pod, exit code and message of the last ten.",
    )
    DISRUPTIONS_SPENT = (
        "MaxDisruptionsReached",
        "Machines were taken from the run more often than `restart.maxDisruptions` allows.",
        "Use capacity that lasts longer, or raise the number in a new job that goes on from the same checkpoints "
        "(`checkpoint.initFrom`).",
    )
    DEADLINE = (
        "DeadlineExceeded",
        "`lifecycle.activeDeadlineSeconds` has passed since `status.startTime`.",
        "Make another job with more time; `checkpoint.initFrom` goes on from this one's checkpoint.",
    )
    FROZEN_CONFIG_LOST = (
        "FrozenConfigLost",
        "The ConfigMap `status.runConfigName` is gone, and with it what the job was accepted as.",
        "Make the job anew; nothing can tell what an older version resolved.",
    )
    FATAL_UNSEEN = (
        "FatalExit",
        "A pod ended with an exit code that no restart heals, while no controller saw it.",
        "Look at the pod's log, or at the run folder's `logs/`.",
    )
    # Classes of attempts: exit codes
    TRAINER_FAILED = (
        "TrainerFailed",
        "The trainer failed (exit code 1). Spends `restart.maxRestarts`.",
        "The attempt's message and the pod's log tell the exception.",
    )
    INVALID_CONFIG = (
        "InvalidConfig",
        "The trainer refuses its configuration or environment (exit code 2).",
        "Mend what the message names, and make the job anew.",
    )
    CONTRACT_MISMATCH = (
        "ContractMismatch",
        "The trainer image does not read the version of the RunConfig (exit code 3); the message names both.",
        "Use the trainer image of the operator's version (`spec.image`), or the operator of the image's.",
    )
    PLAN_DIFFERS = (
        "PlanDiffers",
        "The real machine is not the one that was planned for (exit code 4).",
        "Compare `spec.tpu` with the nodes that the pods got.",
    )
    INPUT_NOT_REACHABLE = (
        "InputNotReachable",
        "Model, data, rewards or output cannot be read or written (exit code 5).",
        "Look at the name in the message, and at the rights of the job's service account.",
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "Device or host memory is spent (exit code 6, or the kernel's kill). Spends `restart.maxRestarts`.",
        "Smaller `train.microBatchSize`, `rollout.promptBatchSize` or lengths; more `resources` for host memory.",
    )
    NON_FINITE = (
        "NonFinite",
        "Loss or gradient is not a finite number (exit code 7).",
        "Lower the learning rate, or `train.onNonFinite: Skip`.",
    )
    PEER_LOST = (
        "PeerLost",
        "Another process was lost, and none told why (exit code 9). Spends `restart.maxDisruptions`.",
        "Now and then: nothing. Again and again: look at nodes and network.",
    )
    PREEMPTED = "Preempted", "The pod was asked to stop (exit code 10). Spends `restart.maxDisruptions`.", ""
    DISRUPTED = (
        "Disrupted",
        "A pod was taken from its node: drained, preempted, or the node lost. Spends `restart.maxDisruptions`.",
        "",
    )
    CANNOT_START = (
        "CannotStart",
        "The container's program could not be started (exit codes 125 to 128). Spends `restart.maxRestarts`.",
        "Is `spec.image` a trainer image?",
    )
    UNKNOWN = (
        "Unknown",
        "An attempt ended without a trace, or while no controller looked. Spends `restart.maxDisruptions`.",
        "",
    )
    STARTUP_DEADLINE = (
        "StartupDeadline",
        "Not every pod ran within `lifecycle.startupDeadlineSeconds`: all were released, and a start is made again "
        "after a wait. Spends `restart.maxDisruptions`.",
        "`status.conditions` tell what the pods waited for; ask for capacity that exists.",
    )
    JOB_SET_DELETED = (
        "JobSetDeleted",
        "Somebody deleted the JobSet of a running job; it was made again. Spends `restart.maxDisruptions`.",
        "To stop a job set `spec.suspend: true`, or delete the GRPOJob.",
    )

    def __init__(self, word: str, meaning: str, remedy: str) -> None:
        self.word = word
        self.meaning = meaning
        self.remedy = remedy


BY_WORD = {reason.word: reason for reason in Reason}


@dataclass(frozen=True, slots=True)
class Observation:
    """One condition as it is now."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str = ""


def lay_over(
    old: Iterable[Condition], observations: Iterable[Observation], generation: int, now: str
) -> tuple[Condition, ...]:
    """All conditions, in their order; one whose status is what it was keeps the time of its last transition."""
    before: Mapping[str, Condition] = {condition.type: condition for condition in old}
    laid = dict(before)
    for seen in observations:
        known = before.get(seen.type)
        since = known.last_transition_time if known and known.status == seen.status else now
        laid[seen.type] = Condition(
            type=seen.type,
            status=seen.status,
            reason=seen.reason.word,
            message=shortened(seen.message or seen.reason.meaning),
            observed_generation=generation,
            last_transition_time=since,
        )
    return tuple(laid[kind] for kind in TYPES if kind in laid)


def shortened(message: str, longest: int = LONGEST_MESSAGE) -> str:
    return message if len(message) <= longest else f"{message[: longest - 2]} …"


def holds(status: GRPOJobStatus, kind: ConditionType) -> bool:
    return any(condition.type == kind and condition.status == "True" for condition in status.conditions)


def says(status: GRPOJobStatus, kind: ConditionType, reason: Reason) -> bool:
    found = condition(status, kind)
    return found is not None and found.reason == reason.word


def condition(status: GRPOJobStatus, kind: ConditionType) -> Condition | None:
    return next((condition for condition in status.conditions if condition.type == kind), None)


def phase_of(conditions: Iterable[Condition]) -> Phase:
    """One word for people, from the conditions."""
    known = {condition.type: condition for condition in conditions}

    def true(kind: ConditionType) -> bool:
        return kind in known and known[kind].status == "True"

    for kind in ("Failed", "Succeeded", "Suspended", "Restarting", "Running"):
        if true(kind):
            return kind
    if not true("Validated"):
        return "Pending"
    if not true("Admitted"):
        return "Queued"
    stuck = (Reason.JOB_SET_MISSING.word, Reason.NAME_TAKEN.word, Reason.REFUSED.word)
    return "Pending" if known["Provisioned"].reason in stuck else "Starting"
