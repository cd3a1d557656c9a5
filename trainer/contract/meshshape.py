"""Reading `mesh_shape`: text and device counts in, three axis sizes or the reason why not out.

Devices lie in process-major order, slices outermost, so tp must divide the devices of a process (a tensor-parallel
group never leaves it) and the slices must divide dp. Refuses to know batches and spellings.
"""

import re
from functools import lru_cache

from pydantic import BaseModel, ConfigDict

AXES = ("dp", "fsdp", "tp")
FIX = "use auto, or three numbers of which one may be -1, such as 1,-1,1"
SLICES_FIX = "use auto, or a dp that is a multiple of the number of slices"
_PLAIN = re.compile(r"-?[0-9]{1,9}")
_NAMED = re.compile(r"(dp|fsdp|tp)\s*:\s*(-?[0-9]{1,9})")


class Mesh(BaseModel):
    """Sizes of the three mesh axes; their product is the number of devices of the run."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", strict=True)

    dp: int
    fsdp: int
    tp: int


def _written(text: str) -> list[int] | None:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != len(AXES):
        return None
    if all(_PLAIN.fullmatch(part) for part in parts):
        return [int(part) for part in parts]
    matches = [_NAMED.fullmatch(part) for part in parts]
    sizes = {match[1]: int(match[2]) for match in matches if match}
    return [sizes[axis] for axis in AXES] if len(sizes) == len(AXES) else None


@lru_cache(maxsize=256)
def read_mesh(text: str, processes: int, devices_per_process: int, slices: int) -> Mesh | str:
    """The mesh of a run, or what is wrong with the text, as the middle of a sentence that starts with it."""
    devices = processes * devices_per_process
    if text.strip() == "auto":
        return Mesh(dp=slices, fsdp=devices // slices, tp=1)
    sizes = _written(text)
    if sizes is None:
        return "must be auto, or three whole numbers for dp, fsdp and tp"
    free = [index for index, size in enumerate(sizes) if size == -1]
    if len(free) > 1 or any(size < 1 for size in sizes if size != -1):
        return "must have three numbers of at least 1, of which at most one may be -1"
    return _placed(sizes, free, processes, devices_per_process)


def _placed(sizes: list[int], free: list[int], processes: int, devices_per_process: int) -> Mesh | str:
    devices = processes * devices_per_process
    owned = f"{devices} devices ({processes} process{'es' * (processes > 1)} x {devices_per_process})"
    product = 1
    for size in sizes:
        product *= size if size != -1 else 1
    if free and devices % product == 0:
        sizes[free[0]] = devices // product
    elif free:
        return f"leaves no whole number for -1: {product} does not divide the {owned}"
    elif product != devices:
        return f"covers {product} devices, and dp x fsdp x tp must be the {owned}"
    dp, fsdp, tp = sizes
    if devices_per_process % tp:
        return f"has tp = {tp}, which must divide the {devices_per_process} devices of a process"
    return Mesh(dp=dp, fsdp=fsdp, tp=tp)
