"""The status of a GRPOJob: what the API shows of a run, in the API's own words.

Types only. What a status says follows from a job and its children, and is decided elsewhere.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from controller.podtypes import DnsName
from trainer.contract.section import Prose, Text
from trainer.contract.violations import to_camel

Counter = Annotated[int, Field(ge=0, lt=2**53)]
"""Whole numbers that every reader of JSON keeps."""
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", max_length=20, description="RFC 3339, UTC")]

ConditionType = Literal[
    "Validated", "Admitted", "Provisioned", "Running", "Progressing", "Suspended", "Restarting", "Succeeded", "Failed"
]
Phase = Literal["Pending", "Queued", "Starting", "Running", "Restarting", "Suspended", "Succeeded", "Failed"]
AttemptClass = Literal["Fatal", "Failure", "Disruption", "Eviction"]


class StatusSection(BaseModel):
    """A part of the status: frozen, and open to fields of a later version, which an older controller must not lose."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, alias_generator=to_camel, validate_by_name=True)


class Condition(StatusSection):
    """One observation (https://github.com/kubernetes/community, sig-architecture/api-conventions.md).

    Succeeded and Failed are terminal and sticky: once True, nothing of the status but bookkeeping changes.
    """

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=128)]
    message: Annotated[str, Field(max_length=32768)]
    observed_generation: Counter
    last_transition_time: Time


class MeshStatus(StatusSection):
    dp: Counter
    fsdp: Counter
    tp: Counter


class PlanStatus(StatusSection):
    """The effective batch plan, with the keys of `plan` in `grpoctl plan -o json`. `hosts` is per slice."""

    processes: Counter
    devices_per_process: Counter
    hosts: Counter
    slices: Counter
    mesh: MeshStatus
    group_size: Counter
    sequences_per_step: Counter
    prompts_per_step: Counter
    prompts_per_pass_per_process: Counter
    passes: Counter
    sequences_per_process: Counter
    sequences_per_micro_step: Counter
    micro_steps: Counter
    summary: Prose


class ProgressStatus(StatusSection):
    """What process 0 reported last."""

    step: Counter
    total_steps: Counter
    display: Annotated[str, Field(max_length=32, description="120/500")]
    reward_mean: float | None = None
    tokens_per_second_per_chip: float | None = None
    eta: Annotated[str, Field(max_length=32)] | None = None
    last_step_time: Time | None = None


class CheckpointStatus(StatusSection):
    last_step: Counter | None = Field(None, description="newest committed checkpoint")


class Attempt(StatusSection):
    """One ended attempt, counted once: by its JobSet's UID and restart number."""

    classification: AttemptClass = Field(alias="class")
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=128)] = "Unknown"
    pod: DnsName | None = None
    exit_code: Annotated[int, Field(ge=-1, le=255)] | None = None
    step: Counter | None = None
    message: Annotated[str, Field(max_length=4096)] | None = None
    job_set_uid: Text
    restart: Counter
    time: Time | None = Field(None, description="when it was counted")


class AttemptsStatus(StatusSection):
    """The ledger of attempts. Below `last` stands what a controller needs to count each attempt once."""

    restarts: Counter = Field(0, description="failures of the run's own; spends restart.maxRestarts")
    disruptions: Counter = Field(0, description="losses from outside; spends restart.maxDisruptions")
    evictions: Counter = Field(0, description="taken back by Kueue; costs nothing")
    last: Annotated[tuple[Attempt, ...], Field(max_length=10)] = ()
    ending: Attempt | None = Field(
        None, description="the attempt under way, by the pods that failed so far; not counted"
    )
    before: Counter = Field(0, description="attempts of earlier JobSets of this job")
    job_set_uid: Text | None = Field(None, description="the JobSet that is counted")
    judged: Counter = Field(0, description="attempts of that JobSet that are counted")
    released: Text | None = Field(None, description="the JobSet that is being deleted on purpose")


class GRPOJobStatus(StatusSection):
    """`phase` is derived from the conditions, for people."""

    observed_generation: Counter | None = None
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = ()
    phase: Phase | None = None
    devices: Text | None = Field(None, description="the machine in short: v6e 4x4, 2 x v6e 4x4, cpu 2x4")
    job_set_name: DnsName | None = None
    run_config_name: DnsName | None = Field(None, description="the immutable ConfigMap with run.json and the JobSet")
    run_id: Text | None = None
    output_uri: Text | None = None
    start_time: Time | None = None
    completion_time: Time | None = None
    plan: PlanStatus | None = None
    progress: ProgressStatus | None = None
    checkpoint: CheckpointStatus | None = None
    attempts: AttemptsStatus = AttemptsStatus()

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the object: camelCase, nothing that is null."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")
