"""The slices of GKE: accelerator, topology and machine type in, hosts, chips, devices and pod requests out.

The catalogue is data (`data/tpu-catalog.json`, with its sources). It knows no job: `resolve` asks.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TpuSlice:
    """One slice. `hosts` are its VMs, one process each; `devices_per_process` are JAX devices. `cpu` and `memory` are
    what a pod asks for on one host, None where the machine's size is not published.
    """

    accelerator: str
    topology: str
    machine_type: str
    generation: str
    chips: int
    hosts: int
    chips_per_host: int
    devices_per_chip: int
    cpu: str | None
    memory: str | None

    @property
    def devices_per_process(self) -> int:
        return self.chips_per_host * self.devices_per_chip


@dataclass(frozen=True, slots=True)
class CpuHosts:
    """Hosts without a TPU, one process each with `devices_per_process` JAX CPU devices."""

    hosts: int
    devices_per_process: int
    cpu: str
    memory: str
