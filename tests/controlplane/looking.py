"""What tests look at in a control plane, and how long they wait for it."""

import json
import time
from collections.abc import Callable
from typing import Any

from tests.controlplane.world import World


def until(holds: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"{what} did not come about in {seconds:.0f} s"
        time.sleep(0.1)
    return found


def read(world: World, namespace: str, *what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.kubectl("-n", namespace, "get", *what, "-o", "json").stdout or "{}")
    return found
