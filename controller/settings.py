"""What an installation decides and a job does not. Chart and command line override it."""

from dataclasses import dataclass

from controller import __version__

TRAINER_IMAGE = f"ghcr.io/grpo-dev/grpo-trainer:{__version__}"


@dataclass(frozen=True, slots=True)
class Settings:
    """`image` is the trainer image of jobs that name none; `progress_url` is where trainers report, None is nowhere."""

    image: str = TRAINER_IMAGE
    progress_url: str | None = None
