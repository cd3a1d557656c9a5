"""Lease election with real processes and the real API server: one leads, and who takes over when."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.runtime.client import Api
from controller.runtime.election import LEASES, LeaseElection, Terms
from tests.controlplane.elector import TERMS
from tests.controlplane.looking import read, until
from tests.controlplane.meddling import Meddler
from tests.controlplane.world import World


class Replica:
    """One process that stands for election; `when(word)` waits for what it says and returns the time that it names."""

    def __init__(self, kubeconfig: Path, namespace: str, identity: str) -> None:
        command = [sys.executable, "-m", "tests.controlplane.elector", str(kubeconfig), namespace, identity]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said: dict[str, float] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            word, at = line.split()
            self.said[word] = float(at)

    def when(self, word: str) -> float:
        until(lambda: word in self.said, f"{word!r} of a replica")
        return self.said[word]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def replica(namespace: str) -> Iterator[Callable[[Path, str], Replica]]:
    """Starts replicas that end with the test."""
    started = []

    def start(kubeconfig: Path, identity: str) -> Replica:
        started.append(Replica(kubeconfig, namespace, identity))
        return started[-1]

    yield start
    for one in started:
        one.end()


def spec(world: World, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = read(world, namespace, "lease", "test")["spec"]
    return found


def test_a_leader_that_is_asked_to_end_gives_the_lease_up(world: World, namespace: str, replica: Any) -> None:
    """SIGTERM: the other replica leads at its next look, long before the lease would have run out."""
    first = replica(world.kubeconfig, "first")
    first.when("leads")
    second = replica(world.kubeconfig, "second")
    second.when("stands")
    time.sleep(1.5)
    assert "leads" not in second.said
    first.process.send_signal(signal.SIGTERM)
    assert second.when("leads") - first.when("ended") < TERMS.lease - 2 * TERMS.retry
    assert first.process.wait(60) == 0
    held = spec(world, namespace)
    assert (held["holderIdentity"], held["leaseTransitions"]) == ("second", 1)


def test_a_leader_that_is_killed_is_followed_when_its_lease_has_run_out(
    world: World, namespace: str, replica: Any
) -> None:
    """SIGKILL: nobody leads for the rest of the lease, then the other replica does."""
    first = replica(world.kubeconfig, "first")
    first.when("leads")
    second = replica(world.kubeconfig, "second")
    second.when("stands")
    until(lambda: spec(world, namespace)["holderIdentity"] == "first", "the lease")
    time.sleep(1.0)
    first.process.kill()
    killed = time.monotonic()
    taken = second.when("leads") - killed
    assert TERMS.lease - TERMS.retry * 2 < taken
    assert spec(world, namespace)["holderIdentity"] == "second"


def test_a_leader_that_cannot_renew_ends_before_another_leads(
    world: World, namespace: str, replica: Any, tmp_path: Path
) -> None:
    """Its network is silent: the process ends itself with an error, and only then the other replica leads."""
    meddler = Meddler(world, tmp_path)
    first = replica(meddler.kubeconfig, "first")
    first.when("leads")
    second = replica(world.kubeconfig, "second")
    second.when("stands")
    time.sleep(1.0)
    with meddler.silence():
        assert first.process.wait(60) == 1
        ended = time.monotonic()
        assert second.when("leads") > ended
    assert "could not be renewed in time" in (first.process.stderr.read() if first.process.stderr else "")
    meddler.end()


@pytest.mark.parametrize("written", ["1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"])
def test_a_lease_runs_by_the_monotonic_clock(world: World, namespace: str, written: str) -> None:
    """Whatever time its holder wrote, a lease is taken when it has not changed for its duration, and no earlier."""
    api, leads, now = Api.connect(str(world.kubeconfig), "tests"), threading.Event(), [1000.0]
    held = {"holderIdentity": "other", "leaseDurationSeconds": 600, "renewTime": written, "acquireTime": written}
    lease = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": "test"}, "spec": held}
    api.create(LEASES, lease, namespace)
    terms = Terms(lease=600, renew_deadline=400, retry=0.1)
    election = LeaseElection(
        api, namespace, "test", "me", leads.set, on_lost=lambda: None, terms=terms, clock=lambda: now[0]
    )
    election.start()
    time.sleep(0.5)
    now[0] += 599
    assert not leads.wait(0.5)
    now[0] += 2
    assert leads.wait(60)
    election.stop()
    assert spec(world, namespace)["holderIdentity"] == ""
    api.close()
