"""The catalogue of slices against libtpu's own description of them."""

import os

import pytest

from controller.tpu import TpuSlice, find_slice, topologies

ONE_HOST_OF_EIGHT = {"chips_per_host_bounds": [2, 4, 1]}
FAMILIES = [
    ("v3", "tpu-v3-device"),
    ("v3", "tpu-v3-slice"),
    ("v5e", "tpu-v5-lite-podslice"),
    ("v5e", "tpu-v5-lite-device"),
    ("v5p", "tpu-v5p-slice"),
    ("v6e", "tpu-v6e-slice"),
    ("tpu7x", "tpu7x"),
]
LARGEST = 1024
"""Chips; larger slices of 3D families are many and say nothing new."""
CASES: list[tuple[str, str, str, str | None, dict[str, object]]] = [
    (generation, accelerator, topology, None, {})
    for generation, accelerator in FAMILIES
    for topology in topologies(accelerator)
    if topology != "2x4" and isinstance(found := find_slice(accelerator, topology, None), TpuSlice)
    if found.chips <= LARGEST
] + [
    ("v5e", "tpu-v5-lite-podslice", "2x4", "ct5lp-hightpu-4t", {}),
    ("v5e", "tpu-v5-lite-podslice", "2x4", "ct5lp-hightpu-8t", ONE_HOST_OF_EIGHT),
    ("v5e", "tpu-v5-lite-device", "2x4", "ct5l-hightpu-8t", ONE_HOST_OF_EIGHT),
    ("v6e", "tpu-v6e-slice", "2x4", "ct6e-standard-4t", {}),
    ("v6e", "tpu-v6e-slice", "2x4", "ct6e-standard-8t", ONE_HOST_OF_EIGHT),
]


@pytest.fixture(autouse=True)
def quiet_libtpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No metadata server to ask, no lock file to quarrel about with another process."""
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):
        monkeypatch.setitem(os.environ, name, value)


def described(name: str, **options: object) -> tuple[int, int]:
    """Hosts and devices of a topology as the TPU compiler sees it."""
    from jax.experimental import topologies as jax_topologies

    devices = jax_topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    return len({device.process_index for device in devices}), len(devices)


@pytest.mark.parametrize(("generation", "accelerator", "topology", "machine_type", "options"), CASES)
def test_hosts_and_devices_are_those_of_the_tpu_compiler(
    generation: str, accelerator: str, topology: str, machine_type: str | None, options: dict[str, object]
) -> None:
    """Hosts and JAX devices of a slice are those that libtpu's topology description counts."""
    found = find_slice(accelerator, topology, machine_type)
    assert isinstance(found, TpuSlice)
    assert described(f"{generation}:{topology}", **options) == (found.hosts, found.hosts * found.devices_per_process)


@pytest.mark.parametrize("topology", ["2x2x1", "2x2x2", "2x2x4", "4x4x4"])
def test_v4_agrees_on_hosts_and_has_one_device_a_chip_with_megacore(topology: str) -> None:
    """The description of v4 has no megacore and so two devices a chip; on GKE a v4 chip is one device."""
    found = find_slice("tpu-v4-podslice", topology, None)
    assert isinstance(found, TpuSlice)
    assert described(f"v4:{topology}") == (found.hosts, 2 * found.hosts * found.devices_per_process)
