"""Which JobSet, and which Kueue, the cluster has: looked at when it matters, remembered in between.

In: the API server. Out: the shape of JobSet's spec, None where there is no JobSet; the resource of Kueue's Workload.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from controller.cluster import trimmed
from controller.cluster.resources import DEFINITIONS, JOB_SETS, workloads
from controller.runtime.client import Api, ApiError, Resource

PRESENT_SECONDS = 300.0
"""An upgrade of JobSet brings new fields; nothing that runs waits for them."""
ABSENT_SECONDS = 10.0


class JobSetDefinition:
    """The installed JobSet's fields. Any thread; one look at a time."""

    def __init__(self, api: Api, now: Callable[[], float] = time.monotonic) -> None:
        self._api, self._now = api, now
        self._lock = threading.Lock()
        self._schema: dict[str, Any] | None = None
        self._looked: float | None = None

    def schema(self) -> dict[str, Any] | None:
        """The structural schema of JobSet's spec. Raises ApiError where the server does not say."""
        with self._lock:
            patience = ABSENT_SECONDS if self._schema is None else PRESENT_SECONDS
            if self._looked is None or self._now() - self._looked > patience:
                self._look()
            return self._schema

    def look(self) -> None:
        """Look now: something is missing that was there."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        try:
            found = self._api.get(DEFINITIONS, f"{JOB_SETS.plural}.{JOB_SETS.group}")
            self._schema = _spec_schema(found)
        except ApiError as error:
            if not error.is_not_found:
                raise
            self._schema = None
        self._looked = self._now()


def _spec_schema(definition: dict[str, Any]) -> dict[str, Any] | None:
    for version in definition["spec"]["versions"]:
        if version["name"] == JOB_SETS.version and version["served"]:
            properties = version["schema"]["openAPIV3Schema"]["properties"]
            return dict(trimmed.schema(properties["spec"]))
    return None


def kueue_workloads(api: Api) -> Resource | None:
    """Kueue's Workload in the version that the server prefers, None without Kueue."""
    try:
        found = api.request("GET", "/apis/kueue.x-k8s.io")
    except ApiError as error:
        if error.is_not_found:
            return None
        raise
    return workloads(found["preferredVersion"]["version"])
