"""What an installation decides and a job does not: today the trainer image. Chart and command line override it."""

from dataclasses import dataclass

from controller import __version__

TRAINER_IMAGE = f"ghcr.io/grpo-dev/grpo-trainer:{__version__}"


@dataclass(frozen=True, slots=True)
class Settings:
    """`image` is the trainer image of jobs that name none."""

    image: str = TRAINER_IMAGE
