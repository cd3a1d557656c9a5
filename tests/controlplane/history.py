"""All that was ever seen of one job, by who watches beside the operator."""

import threading
from types import TracebackType
from typing import Any

from controller.cluster.resources import GRPOJOBS, JOB_SETS
from controller.runtime.reflector import Reflector
from controller.runtime.store import Store
from tests.controlplane.operating import Operating

Body = dict[str, Any]


class History:
    """`job_sets` are the UIDs of every JobSet there was, `reasons` all that conditions and attempts ever said,
    `ends` each turn of `phase` into an end, `last` the last status. `over`: the job is deleted.
    """

    def __init__(self, operating: Operating, name: str) -> None:
        self.job_sets: list[str] = []
        self.reasons: set[str] = set()
        self.ends: list[str] = []
        self.last: Body = {}
        self._name, self._over = name, threading.Event()
        api, namespace = operating.api, operating.namespace
        self._reflectors = [
            Reflector(api, GRPOJOBS, Store(), self._on_job, namespace),
            Reflector(api, JOB_SETS, Store(), self._on_job_set, namespace),
        ]

    def __enter__(self) -> "History":
        for reflector in self._reflectors:
            reflector.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reflector in self._reflectors:
            reflector.stop()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def wait(self, seconds: float) -> None:
        self._over.wait(seconds)

    def _on_job(self, old: Body | None, new: Body | None) -> None:
        if (new or old or {})["metadata"]["name"] != self._name:
            return
        if new is None:
            self._over.set()
            return
        status: Body = new.get("status") or {}
        phase = status.get("phase")
        if phase in ("Succeeded", "Failed") and phase != self.last.get("phase"):
            self.ends.append(phase)
        self.last = status or self.last
        self.reasons |= {condition["reason"] for condition in status.get("conditions") or ()}
        self.reasons |= {attempt["reason"] for attempt in (status.get("attempts") or {}).get("last") or ()}

    def _on_job_set(self, old: Body | None, new: Body | None) -> None:
        if new is not None and new["metadata"]["name"] == self._name and new["metadata"]["uid"] not in self.job_sets:
            self.job_sets.append(new["metadata"]["uid"])
