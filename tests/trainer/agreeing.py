"""One of two processes that agree; started by test_distributed.py.

    python agreeing.py INDEX PORT

Prints one JSON object: what each word of agreement gave.
"""

import json
import os
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from trainer import distributed
from trainer.contract.exits import ExitCode, RunError


def fails_on(index: int):
    def action() -> str:
        if index == 1:
            raise RunError(ExitCode.INPUT_NOT_REACHABLE, "data.train: no such file")
        if index == 2:
            raise ZeroDivisionError("both")
        return "fine"

    return action


def told(action) -> list:
    try:
        return ["returned", distributed.together(action)]
    except RunError as error:
        return [int(error.code), error.message, error.agreed]


def unhurried(index: int) -> list:
    """Process 0 needs as long as five meetings: what each process gives, and whether it beat while it waited."""
    distributed._MEETING_SECONDS = 0.1
    beats: list[int] = []
    given = distributed.unhurried(lambda: time.sleep(0.5 * (1 - index)) or index, lambda: beats.append(1))
    return [given, len(beats) > 2]


def main(index: int, port: str) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
    precise = np.array([1 / 3 + index, 1e300], np.float64)
    result = {
        "gather": distributed.gather(precise).tolist(),
        "max": distributed.agree_max(2**40 + index),
        "any": [distributed.agree_any(index == 1), distributed.agree_any(False)],
        "first": distributed.text_of_first(f"process {index}"),
        "unhurried": unhurried(index),
        "fine": told(fails_on(0)),
        "one": told(fails_on(index)),
        "both": told(fails_on(2)),
    }
    print(json.dumps(result))
    distributed.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
