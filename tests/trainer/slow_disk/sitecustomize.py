"""A disk on which committing a checkpoint takes `SECONDS_PER_COMMIT`: put this folder on PYTHONPATH."""

import os
import time

from trainer import committed

commit = committed.commit


def slowly(*arguments: object) -> None:
    time.sleep(float(os.environ["SECONDS_PER_COMMIT"]))
    commit(*arguments)


committed.commit = slowly
