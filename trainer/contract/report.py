"""What process 0 of a run tells the operator while it runs: one JSON object, posted over HTTPS.

In: nothing. Out: the type, and the names by which a pod finds the endpoint. Both halves may be of another version than
the other: keys that a reader does not know are left aside, and all but the counters may be missing.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ENV_PROGRESS_URL = "GRPO_PROGRESS_URL"
"""Where reports are posted. Without it nobody is told."""
ENV_PROGRESS_FOLDER = "GRPO_PROGRESS_FOLDER"
"""Holds `TOKEN_FILE` and `CA_FILE`, both renewed while the pod runs."""
TOKEN_FILE = "token"  # noqa: S105 - a file's name
CA_FILE = "ca.crt"
AUDIENCE = "grpo-operator/progress"
"""Whom the token is for: no API server takes it, and the operator no other."""
MAX_REPORT_BYTES = 4096

Counter = Annotated[int, Field(ge=0, lt=1 << 53)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class ProgressReport(BaseModel):
    """`heartbeat` counts finished units of work, as the trainer's watchdog sees them; `doing` is for people.

    `step` is the last completed one, `checkpoint_step` that of the newest committed checkpoint. What is not known yet,
    or is no number, is None. `patience_seconds`: how long the heartbeat may stand still before the trainer's own
    watchdog ends the work under way.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)

    attempt: Counter
    heartbeat: Counter
    step: Counter
    total_steps: Counter
    doing: Annotated[str, Field(max_length=256)] = ""
    reward_mean: Number | None = None
    tokens_per_second_per_device: Number | None = None
    eta_seconds: Annotated[Number, Field(ge=0)] | None = None
    checkpoint_step: Counter | None = None
    patience_seconds: Annotated[Number, Field(ge=0)] | None = None
