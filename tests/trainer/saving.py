"""One of two processes that save together; started by test_checkpoint_processes.py.

    python saving.py INDEX PORT FOLDER

The disk of process 1 is too small for its part of step 2, and its part of step 3 is spoiled later. Prints one JSON
object: what the processes agreed on.
"""

import json
import os
import resource
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trainer import distributed
from trainer.cadence import Cadence
from trainer.checkpoint import Checkpoints, Place
from trainer.contract.runner import CheckpointConfig

ROWS = 4096


def state_of(step: int, mesh: Mesh) -> dict[str, jax.Array]:
    """Numbers that do not compress, in one array split over all devices."""
    values = np.random.default_rng(step).standard_normal((ROWS, 4)).astype(np.float32)
    sharding = NamedSharding(mesh, PartitionSpec("fsdp"))
    return {"w": jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])}


def is_due(index: int, minutes: float) -> bool:
    """Whether processes whose clocks differ by an hour save after so many minutes of process 0's clock."""
    times = iter([0.0, 60 * (minutes + 60 * index)])
    cadence = Cadence(CheckpointConfig(every_minutes=10), lambda: next(times))
    return cadence.is_due(1, None, 0.0)


def save(checkpoints: Checkpoints, step: int, mesh: Mesh) -> list[int | None]:
    checkpoints.save(state_of(step, mesh), Place(step, 10 * step, "data"))
    checkpoints.finish()
    return [checkpoints.newest, checkpoints.failed]


def main(index: int, port: str, folder: str) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
    mesh = Mesh(np.array(jax.devices()), ("fsdp",))
    checkpoints = Checkpoints(folder, keep=2)
    result = {"due": [is_due(index, 9.9), is_due(index, 10.0)], "saved": [save(checkpoints, 1, mesh)]}
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192 if index else unlimited[0], unlimited[1]))
    result["saved"].append(save(checkpoints, 2, mesh))
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    result["saved"].append(save(checkpoints, 3, mesh))
    result["restored"] = [restored(checkpoints, mesh)]
    distributed.together(lambda: spoil(Path(folder) / "3" / "state" / "ocdbt.process_1") if index else None)
    result["restored"].append(restored(checkpoints, mesh))
    print(json.dumps(result))
    distributed.stop()


def restored(checkpoints: Checkpoints, mesh: Mesh) -> tuple[int, bool]:
    """The step of the newest checkpoint, and whether this process's part of it is what it was."""
    state, place = checkpoints.restore_newest(state_of(0, mesh))
    ours, theirs = (one["w"].addressable_shards for one in (state, state_of(place.step, mesh)))
    return place.step, all(np.array_equal(one.data, two.data) for one, two in zip(ours, theirs, strict=True))


def spoil(folder: Path) -> None:
    """Other bytes where a process wrote its part of an array, and the size that it had: only that part is lost."""
    largest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"\xff" * largest.stat().st_size)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
