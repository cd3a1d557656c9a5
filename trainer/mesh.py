"""Station 7, the mesh: every device of the run in one grid `dp, fsdp, tp`, and rows of data laid over it.

In: the plan's three mesh sizes, and the devices JAX found. Out: a `Mesh`, the shardings of a batch, global arrays.
It refuses to know the model, and does not ask whether the machine is the planned one: `trainer.distributed` has.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from trainer.contract.batch import BatchPlan

AXES = ("dp", "fsdp", "tp")
DATA = ("dp", "fsdp")
"""The axes that split a batch: one (dp, fsdp) index is one data shard; its tp devices hold the same rows."""


def build_mesh(plan: BatchPlan, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lay `devices` (default: all of the run) out process-major, then by local id, slices outermost.

    With tp dividing the devices of a process, a tensor-parallel group then never leaves its process, each process
    holds whole data shards that follow one another, and dp is the axis that crosses slices.
    """
    found = jax.devices() if devices is None else devices
    ordered = np.array(sorted(found, key=_place))
    shape = (plan.mesh.dp, plan.mesh.fsdp, plan.mesh.tp)
    return Mesh(ordered.reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def local_mesh() -> Mesh:
    """The devices of this process alone, all along fsdp: for work without a plan."""
    devices = np.array(sorted(jax.local_devices(), key=_place)).reshape(1, -1, 1)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _place(device: jax.Device) -> tuple[int, int, int]:
    # Only devices of a multi-slice TPU carry a slice index; elsewhere there is one slice.
    return getattr(device, "slice_index", 0) or 0, device.process_index, device.id


def batch_sharding(mesh: Mesh, row_axis: int = 0) -> NamedSharding:
    """Rows over the data shards at axis `row_axis`; every other axis whole."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * row_axis, DATA))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def rows_to_global(mesh: Mesh, rows: np.ndarray, row_axis: int = 0) -> jax.Array:
    """One global array from this process's rows: those of process p follow those of process p - 1.

    `rows` has the local rows at `row_axis`, the same number on every process and a multiple of its data shards;
    the result has all rows of the run there, each on the shard that its place gives it. Nothing crosses processes.
    """
    placed: jax.Array = jax.make_array_from_process_local_data(batch_sharding(mesh, row_axis), rows)
    return placed
