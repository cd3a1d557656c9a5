"""One of several replicas leads: who holds the Lease. What leading means comes in as functions.

A lease counts as expired when its record has not changed for its duration by this machine's monotonic clock, so clocks
that differ or jump change nothing. A leader that could not renew in time has lost: `on_lost` must end the process
before another one leads (5 s later), because calls under way cannot be taken back.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from controller.runtime.client import Api, ApiError, Json, Resource

LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
JOIN_SECONDS = 5.0
log = logging.getLogger(__name__)


def end_process() -> NoReturn:
    """At once, without cleaning up: another replica may lead in a few seconds."""
    logging.shutdown()
    os._exit(1)


@dataclass(frozen=True, slots=True)
class Terms:
    """In seconds; those of client-go's callers (15, 10, 2)."""

    lease: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


class LeaseElection:
    """`on_started` is called on a thread of its own once this replica leads, `on_lost` when it no longer may."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        on_started: Callable[[], None],
        on_lost: Callable[[], None] = end_process,
        terms: Terms = Terms(),
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        self._api, self._namespace, self._name, self._identity = api, namespace, name, identity
        self._on_started, self._on_lost = on_started, on_lost
        self._terms, self._clock, self._chance = terms, clock, chance or random.Random()
        self._lease: Json | None = None  # as last seen, and since when it is so
        self._seen_at = self._renewed_at = 0.0
        self._leads = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Gives the lease up, so that another may lead at once. Stop first what only a leader may do."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)
        if self._leads.is_set() and self._lease is not None:
            self._leads.clear()
            self._release(self._lease)

    @property
    def is_leader(self) -> bool:
        return self._leads.is_set()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set() and not self._acquire():
            self._stopping.wait(self._terms.retry * (1 + 0.2 * self._chance.random()))
        if self._stopping.is_set():
            return
        log.info("leading as %s", self._identity)
        threading.Thread(target=self._on_started, name="leading", daemon=True).start()
        if not self._renew_until_lost():
            return
        self._leads.clear()
        log.critical("the lease %s/%s could not be renewed in time", self._namespace, self._name)
        self._on_lost()

    def _acquire(self) -> bool:
        """Whether this replica leads now."""
        began = self._clock()
        try:
            self._look(self._api.within(self._terms.renew_deadline / 2))
            if not self._is_free():
                return False
            self._write(self._api.within(self._terms.renew_deadline / 2))
        except ApiError as error:
            log.log(logging.DEBUG if error.is_conflict else logging.WARNING, "lease not acquired: %s", error)
            return False
        self._renewed_at = began
        self._leads.set()
        return True

    def _renew_until_lost(self) -> bool:
        """False where it ended because of `stop`."""
        while not self._stopping.wait(self._terms.retry):
            if self._left() <= 0 or not self._renew():
                return True
        return False

    def _left(self) -> float:
        return self._renewed_at + self._terms.renew_deadline - self._clock()

    def _within_deadline(self) -> Api:
        return self._api.within(max(0.1, min(self._left(), self._terms.renew_deadline / 2)))

    def _renew(self) -> bool:
        """Whether it may still be this replica's; a call that fails is no loss before the deadline."""
        began = self._clock()
        try:
            self._write(self._within_deadline())
            self._renewed_at = began
        except ApiError as error:
            log.warning("lease not renewed: %s", error)
            if error.is_conflict or error.is_not_found:
                return self._is_still_mine()
        return True

    def _is_still_mine(self) -> bool:
        try:
            self._look(self._within_deadline())
        except ApiError as error:
            log.warning("lease not read: %s", error)
            return True
        return self._lease is None or self._lease["spec"].get("holderIdentity") == self._identity

    def _look(self, api: Api) -> None:
        try:
            lease: Json | None = api.get(LEASES, self._name, self._namespace)
        except ApiError as error:
            if not error.is_not_found:
                raise
            lease = None
        if lease is None or self._lease is None or lease["spec"] != self._lease["spec"]:
            self._seen_at = self._clock()
        self._lease = lease

    def _is_free(self) -> bool:
        if self._lease is None:
            return True
        spec = self._lease["spec"]
        mine_or_nobodys = spec.get("holderIdentity") in {self._identity, "", None}
        return mine_or_nobodys or self._clock() - self._seen_at > spec.get("leaseDurationSeconds", self._terms.lease)

    def _write(self, api: Api) -> None:
        """Hold the lease from now on; the version last seen goes along, so that only one of two writers succeeds."""
        old = self._lease["spec"] if self._lease else {}
        now, mine = _now(), old.get("holderIdentity") == self._identity
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._terms.lease)),
            "acquireTime": old.get("acquireTime", now) if mine else now,
            "renewTime": now,
            "leaseTransitions": old.get("leaseTransitions", 0) + (0 if mine or not old else 1),
        }
        if self._lease is None:
            body = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": self._name},
                "spec": spec,
            }
            self._lease = api.create(LEASES, body, self._namespace)
        else:
            self._lease = api.replace(LEASES, {**self._lease, "spec": spec}, self._namespace)
        self._seen_at = self._clock()

    def _release(self, lease: Json) -> None:
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        try:
            self._api.within(JOIN_SECONDS).replace(LEASES, {**lease, "spec": spec}, self._namespace)
        except ApiError as error:
            log.warning("lease not released, the next leader waits %.0f s: %s", self._terms.lease, error)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
