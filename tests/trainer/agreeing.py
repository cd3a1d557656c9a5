"""One of two processes that agree; started by test_distributed.py.

    python agreeing.py INDEX PORT FOLDER

Prints one JSON object: what each word of agreement gave, and what was found of a program that process 0 kept in FOLDER.
"""

import json
import os
import sys
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trainer import distributed
from trainer.contract.exits import ExitCode, RunError
from trainer.programs import keep_programs


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


def found_by(index: int, folder: str) -> list:
    """How many programs this process found when its turn to compile came, and what the program computes."""
    found = []
    jax.monitoring.register_event_listener(
        lambda event, **_: found.append(event) if event == "/jax/compilation_cache/cache_hits" else None
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    keep_programs(folder)
    mesh = Mesh(np.array(jax.devices()), ("row",))
    whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("row"))
    program = jax.jit(lambda values: (values * values).sum(), out_shardings=whole)
    for turn in range(2):
        if turn == index:
            compiled = program.lower(jax.ShapeDtypeStruct((4,), jnp.float32, sharding=rows)).compile()
        distributed.agree_any(False)
    values = np.arange(4, dtype=np.float32)
    return [len(found), float(compiled(jax.make_array_from_callback((4,), rows, lambda place: values[place])))]


def main(index: int, port: str, folder: str) -> None:
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
        "found": found_by(index, folder),
    }
    print(json.dumps(result))
    distributed.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
