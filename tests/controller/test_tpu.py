"""The catalogue of GKE slices and what is derived from it."""

import math

import pytest

from controller.tpu import NoSuchSlice, TpuSlice, accelerators, find_slice, slice_doubts, topologies

# accelerator, topology, machine type named, machine type found, hosts, chips per host, JAX devices per process.
# https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus, and for 2x4 on two hosts
# GoogleCloudPlatform/kubernetes-engine-samples ai-ml/llm-training-jax-tpu-gemma3/training_multihost_jobset.yaml
SHAPES = [
    ("tpu-v6e-slice", "2x4", "ct6e-standard-8t", "ct6e-standard-8t", 1, 8, 8),
    ("tpu-v6e-slice", "2x4", "ct6e-standard-4t", "ct6e-standard-4t", 2, 4, 4),
    ("tpu-v6e-slice", "4x4", None, "ct6e-standard-4t", 4, 4, 4),
    ("tpu-v6e-slice", "16x16", None, "ct6e-standard-4t", 64, 4, 4),
    ("tpu-v6e-slice", "1x1", None, "ct6e-standard-1t", 1, 1, 1),
    ("tpu-v5-lite-podslice", "2x2", None, "ct5lp-hightpu-4t", 1, 4, 4),
    ("tpu-v5-lite-podslice", "2x4", "ct5lp-hightpu-8t", "ct5lp-hightpu-8t", 1, 8, 8),
    ("tpu-v5-lite-podslice", "4x8", None, "ct5lp-hightpu-4t", 8, 4, 4),
    ("tpu-v5-lite-device", "2x4", None, "ct5l-hightpu-8t", 1, 8, 8),
    ("tpu-v5p-slice", "2x2x1", None, "ct5p-hightpu-4t", 1, 4, 4),
    ("tpu-v5p-slice", "2x2x2", None, "ct5p-hightpu-4t", 2, 4, 4),
    ("tpu-v5p-slice", "4x4x20", None, "ct5p-hightpu-4t", 80, 4, 4),
    ("tpu-v4-podslice", "2x2x4", None, "ct4p-hightpu-4t", 4, 4, 4),
    ("tpu7x", "1x1x1", None, "tpu7x-standard-1t", 1, 1, 2),
    ("tpu7x", "2x2x1", None, "tpu7x-standard-4t", 1, 4, 8),
    ("tpu7x", "4x4x4", None, "tpu7x-standard-4t", 16, 4, 8),
    ("tpu-v3-device", "2x2", None, "ct3-hightpu-4t", 1, 4, 8),
    ("tpu-v3-slice", "4x4", None, "ct3p-hightpu-4t", 4, 4, 8),
    ("tpu-v4-lite-device", "2x2", None, "ct4l-hightpu-4t", 1, 4, 4),
    ("tpu7", "2x2x2", None, "tpu7-standard-4t", 2, 4, 8),
]


@pytest.mark.parametrize(("accelerator", "topology", "named", "machine", "hosts", "chips", "devices"), SHAPES)
def test_a_slice_has_the_hosts_chips_and_devices_of_its_node_pool(
    accelerator: str, topology: str, named: str | None, machine: str, hosts: int, chips: int, devices: int
) -> None:
    """Hosts are the topology's chips over the machine's chips; devices per process count a chip's JAX devices."""
    found = find_slice(accelerator, topology, named)
    assert isinstance(found, TpuSlice)
    assert (found.machine_type, found.hosts, found.chips_per_host) == (machine, hosts, chips)
    assert found.devices_per_process == devices


def test_every_generation_is_known() -> None:
    """Each accelerator label that GKE's autoscaler knows names a family here, and none that it does not know."""
    assert set(accelerators()) == {
        "tpu-v3-device",
        "tpu-v3-slice",
        "tpu-v4-lite-device",
        "tpu-v4-podslice",
        "tpu-v5-lite-device",
        "tpu-v5-lite-podslice",
        "tpu-v5p-slice",
        "tpu-v6e-slice",
        "tpu7x",
        "tpu7",
    }


@pytest.mark.parametrize("accelerator", accelerators())
def test_hosts_divide_every_topology_exactly(accelerator: str) -> None:
    """On each machine type of each topology, hosts times chips per host are the chips of the topology."""
    for topology in topologies(accelerator):
        found = find_slice(accelerator, topology, None)
        if isinstance(found, NoSuchSlice):
            assert found.field == "machine_type"
            assert topology == "2x4"
            continue
        assert found.hosts * found.chips_per_host == math.prod(int(axis) for axis in topology.split("x"))


@pytest.mark.parametrize(
    ("accelerator", "topology", "cubes"),
    [("tpu-v4-podslice", "16x16x16", 64), ("tpu-v5p-slice", "16x20x28", 140), ("tpu7x", "16x24x24", 144)],
)
def test_3d_families_follow_their_rule_up_to_the_largest_pod(accelerator: str, topology: str, cubes: int) -> None:
    """Above 2x4x4 the axes are ascending multiples of four, up to the cubes of one pod and no further."""
    assert topology in topologies(accelerator)
    largest = topologies(accelerator)[-1]
    assert math.prod(int(axis) for axis in largest.split("x")) == cubes * 64


@pytest.mark.parametrize(
    ("accelerator", "topology", "suggested"),
    [
        ("tpu-v6e-slice", "4x2", "use 2x4"),
        ("tpu-v6e-slice", "4x6", "use 4x4 or 4x8"),
        ("tpu-v6e-slice", "32x32", "use 16x16"),
        ("tpu-v5p-slice", "4x4", "which has 3 axes; use 2x2x4"),
        ("tpu-v5p-slice", "8x4x4", "use 4x4x8"),
        ("tpu-v5p-slice", "2x2x3", "use 2x2x2 or 2x2x4"),
        ("tpu-v5p-slice", "16x24x24", "at most 140 cubes of 4x4x4); use 16x20x28"),
        ("tpu-v6e-slice", "four", "write the chips along each axis, such as 2x4"),
        ("tpu-v3-device", "2x4", "use 2x2"),
    ],
)
def test_an_unknown_topology_is_refused_with_the_nearest_ones(accelerator: str, topology: str, suggested: str) -> None:
    """The same chips in a valid order or shape if there is one, else the nearest below and above."""
    found = find_slice(accelerator, topology, None)
    assert isinstance(found, NoSuchSlice)
    assert found.field == "topology"
    assert found.message.endswith(suggested)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("v5e", "use tpu-v5-lite-podslice"),
        ("tpu-v5-podslice", "use tpu-v5-lite-podslice or tpu-v5p-slice"),
        ("tpu-v6e", "use tpu-v6e-slice"),
        ("v7x", "use tpu7x"),
    ],
)
def test_an_unknown_accelerator_is_refused_with_what_may_be_meant(written: str, meant: str) -> None:
    """A generation's everyday name leads to the label that GKE uses."""
    found = find_slice(written, "2x2", None)
    assert isinstance(found, NoSuchSlice)
    assert found.field == "accelerator"
    assert found.message.endswith(meant)


@pytest.mark.parametrize("accelerator", ["tpu-v5-lite-podslice", "tpu-v6e-slice"])
def test_an_ambiguous_slice_is_refused_with_both_choices(accelerator: str) -> None:
    """2x4 of v5e and v6e is one host of eight chips or two of four: each choice, put in, is accepted."""
    found = find_slice(accelerator, "2x4", None)
    assert isinstance(found, NoSuchSlice)
    assert found.field == "machine_type"
    choices = [word for word in found.message.split() if word.startswith("ct")]
    assert len(choices) == 2
    slices = [find_slice(accelerator, "2x4", machine) for machine in choices]
    assert sorted(slice_.hosts for slice_ in slices if isinstance(slice_, TpuSlice)) == [1, 2]


def test_a_machine_type_that_does_not_form_the_topology_is_refused() -> None:
    """A machine type of another family or size is refused with the one that forms the topology."""
    found = find_slice("tpu-v6e-slice", "4x4", "ct6e-standard-8t")
    assert found == NoSuchSlice(
        "machine_type",
        '"ct6e-standard-8t" forms no 4x4 of tpu-v6e-slice; use ct6e-standard-4t (4 hosts of 4 chips)',
    )


def test_requests_leave_room_for_the_node() -> None:
    """A pod asks for four fifths of its machine: 48 GiB of which GKE reserves 4.6 GiB still hold the pod."""
    found = find_slice("tpu-v5-lite-podslice", "1x1", None)
    assert isinstance(found, TpuSlice)
    assert (found.cpu, found.memory) == ("19", "38Gi")


@pytest.mark.parametrize(
    ("accelerator", "topology", "doubt"),
    [
        ("tpu-v5p-slice", "16x16x24", None),
        ("tpu-v5p-slice", "16x20x20", "100 cubes of 4x4x4"),
        ("tpu-v3-device", "2x2", "legacy"),
        ("tpu7", "2x2x1", "no public page"),
        ("tpu-v6e-slice", "4x4", None),
    ],
)
def test_doubtful_slices_carry_a_warning(accelerator: str, topology: str, doubt: str | None) -> None:
    """Legacy and undocumented accelerators, and v5p above its documented 96 cubes, are told."""
    found = find_slice(accelerator, topology, None)
    assert isinstance(found, TpuSlice)
    doubts = slice_doubts(found)
    assert (doubt is None and doubts == ()) or (doubt is not None and doubt in doubts[0])
