"""The device grid: its order, and where rows land on it."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from trainer.contract.batch import BatchPlan, Mesh
from trainer.mesh import batch_sharding, build_mesh, rows_to_global


def plan_of(dp: int, fsdp: int, tp: int) -> BatchPlan:
    devices = dp * fsdp * tp
    rows = devices // tp
    return BatchPlan(
        processes=1,
        devices_per_process=devices,
        hosts=1,
        slices=1,
        mesh=Mesh(dp=dp, fsdp=fsdp, tp=tp),
        group_size=2,
        sequences_per_step=2 * rows,
        prompts_per_step=rows,
        prompts_per_pass_per_process=rows,
        passes=1,
        sequences_per_process=2 * rows,
        sequences_per_micro_step=2 * rows,
        micro_steps=1,
    )


@dataclass(frozen=True)
class Chip:
    """What the order of a mesh reads from a device of a multi-slice TPU."""

    slice_index: int
    process_index: int
    id: int


def test_devices_are_process_major_with_slices_outermost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices follow slice, then process, then local id, so that tp stays in a process and dp crosses the slices."""
    grids = []
    monkeypatch.setattr("trainer.mesh.Mesh", lambda devices, *_, **__: grids.append(devices))
    # Ids as a TPU gives them: they follow the torus, not the processes.
    chips = [Chip(p // 2, p, i) for p, i in [(0, 0), (1, 2), (0, 4), (1, 6), (2, 1), (3, 3), (2, 5), (3, 7)]]
    build_mesh(plan_of(2, 2, 2), chips)
    places = [[[(c.slice_index, c.process_index, c.id) for c in group] for group in shards] for shards in grids[0]]
    assert places == [
        [[(0, 0, 0), (0, 0, 4)], [(0, 1, 2), (0, 1, 6)]],
        [[(1, 2, 1), (1, 2, 5)], [(1, 3, 3), (1, 3, 7)]],
    ]


def test_a_mesh_takes_the_devices_it_is_given() -> None:
    """An explicit list of devices, in any order, becomes the grid of just those devices."""
    subset = jax.devices()[2:6]
    mesh = build_mesh(plan_of(1, 2, 2), subset[::-1])
    assert mesh.axis_names == ("dp", "fsdp", "tp")
    assert mesh.devices.tolist() == [[[subset[0], subset[1]], [subset[2], subset[3]]]]


@pytest.mark.parametrize("row_axis", [0, 1])
def test_rows_lie_on_their_shard_and_on_all_its_tp_devices(row_axis: int) -> None:
    """Row block d of a batch lies on data shard d = (dp, fsdp), once on each of its tp devices."""
    mesh = build_mesh(plan_of(2, 2, 2))
    rows = np.arange(8 * 3).reshape(8, 3) if row_axis == 0 else np.arange(3 * 8).reshape(3, 8)
    batch = rows_to_global(mesh, rows, row_axis)
    np.testing.assert_array_equal(np.asarray(batch), rows)
    held = {shard.device: np.asarray(shard.data) for shard in batch.addressable_shards}
    for number, devices in enumerate(mesh.devices.reshape(4, 2)):
        block = np.take(rows, range(2 * number, 2 * number + 2), axis=row_axis)
        for device in devices:
            np.testing.assert_array_equal(held[device], block)


def test_the_row_axis_is_the_only_one_split() -> None:
    """The sharding of a batch names the data axes at the row axis and nothing else."""
    mesh = build_mesh(plan_of(2, 2, 2))
    assert batch_sharding(mesh).spec == PartitionSpec(("dp", "fsdp"))
    assert batch_sharding(mesh, 1).spec == PartitionSpec(None, ("dp", "fsdp"))
