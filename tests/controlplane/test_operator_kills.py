"""The operator is killed with SIGKILL before and after a write is committed: nothing is lost, or done twice."""

import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from controller.runtime.election import LEASES
from tests.controlplane.history import History
from tests.controlplane.meddling import Meddler
from tests.controlplane.operating import Operating
from tests.controlplane.world import ROOT

DEATHS = min(200, 10 * int(os.environ.get("GRPO_TEST_SCALE") or 1))
SEED = int(os.environ.get("GRPO_TEST_SEED") or random.SystemRandom().randrange(10**6))
SPARED = 0.3
"""Of writes: what comes after one, such as its event, is struck only where that one was not."""


def operator(operating: Operating, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A process of its own, which looks after the test's namespace."""
    command = [sys.executable, "-m", "controller.operator", "--namespace", operating.namespace, *arguments]
    command += [f"--{part}=none" for part in ("metrics", "webhook", "progress")]
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)


class Mortal:
    """The operator as a process of its own, behind `meddler`, killed at each write: before it, and once it is done.

    `deaths` counts (moment, write); after `most` of them it lives on.
    """

    def __init__(self, operating: Operating, meddler: Meddler, log: Path, most: int) -> None:
        self._operating, self._meddler, self._log, self._most = operating, meddler, log, most
        self.deaths: Counter[tuple[str, str]] = Counter()
        self._committed, self._lock = False, threading.Lock()
        self._random = random.Random(SEED)
        self._process: subprocess.Popen[bytes] | None = None
        meddler.before, meddler.after = self._before, self._after

    def start(self) -> None:
        arguments = ("--kubeconfig", str(self._meddler.kubeconfig), "--no-leader-election")
        self._process = operator(self._operating, self._log, *arguments)

    def revive(self) -> None:
        """Start it anew where it is dead."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self._meddler.before = self._meddler.after = lambda method, path: None
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(120)

    def _before(self, method: str, path: str) -> None:
        with self._lock:
            if method == "GET" or self._over() or self._random.random() < SPARED:
                return
            if not self._committed:
                self._kill("before", method, path)
                self._committed = True
                raise ConnectionAbortedError  # the write never comes to the server

    def _after(self, method: str, path: str) -> None:
        with self._lock:
            if method != "GET" and self._committed and not self._over():
                self._kill("after", method, path)
                self._committed = False

    def _over(self) -> bool:
        dead = self._process is None or self._process.poll() is not None
        return dead or sum(self.deaths.values()) >= self._most

    def _kill(self, moment: str, method: str, path: str) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.deaths[moment, written(method, path)] += 1


def written(method: str, path: str) -> str:
    """`POST jobsets`, `PATCH grpojobs/status`: what a write is of, without names."""
    kind = re.sub(r"^.*/namespaces/[^/]+/", "", path.partition("?")[0]).split("/")
    return f"{method} {'/'.join([kind[0], *kind[2:]])}"


def test_deaths_at_every_write(
    operating: Operating, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Job after job lives from acceptance over a restart to its deletion: one JobSet, its attempts counted once each,
    never more told than was so, and nothing comes back.
    """
    record_property("seed", SEED)
    meddler = Meddler(operating.world, tmp_path)
    mortal = Mortal(operating, meddler, tmp_path / "operator.log", DEATHS)
    jobs = []
    while sum(mortal.deaths.values()) < DEATHS:
        jobs.append(name := f"mortal-{len(jobs)}")
        with History(operating, name) as history:
            operating.apply(name, [["1"]], lifecycle={"ttlSecondsAfterFinished": 1, "terminationGracePeriodSeconds": 5})
            while not history.over:
                mortal.revive()
                history.wait(0.2)
            (job_set,) = history.job_sets
            last = history.last
            assert last["phase"] == "Succeeded", last
            attempts = last["attempts"]
            assert (attempts["restarts"] + attempts["disruptions"], attempts.get("jobSetUid")) == (1, job_set), last
            assert set(operating.events(name)) <= history.reasons
            assert history.ends == ["Succeeded"]
    assert mortal.stop() in (0, -signal.SIGTERM)  # the last one may have been asked before it had begun
    meddler.end()
    for name in jobs:
        assert operating.job_set(name) is None or operating.job_set(name)["metadata"].get("deletionTimestamp")
    for (moment, write), count in sorted(mortal.deaths.items()):
        record_property(f"killed {moment} {write}", count)


def test_the_leader_is_killed(operating: Operating, tmp_path: Path) -> None:
    """The other replica takes over what the dead one had begun, and nothing is done twice."""
    arguments = ["--kubeconfig", str(operating.world.kubeconfig), "--own-namespace", operating.namespace]
    replicas = {
        name: operator(operating, tmp_path / f"{name}.log", *arguments, "--identity", name) for name in ("one", "two")
    }

    def leader() -> str | None:
        lease = operating.get(LEASES, "grpo-operator")
        return lease["spec"].get("holderIdentity") if lease else None

    try:
        with History(operating, "handed-on") as history:
            first = operating.wait(leader, "a leader")
            operating.apply("handed-on", [["wait:1 1"]])
            operating.wait(lambda: operating.job_set("handed-on"), "the JobSet")
            replicas[first].kill()
            operating.wait(lambda: leader() not in (None, "", first), "the other's lead", 60)
            operating.wait_phase("handed-on", "Succeeded")
        (job_set,) = history.job_sets
        assert history.ends == ["Succeeded"]
        assert history.last["attempts"]["jobSetUid"] == job_set
        assert len(operating.attempts("handed-on")) == 1
        told = operating.events("handed-on")
        assert len(told) == len(set(told))
    finally:
        for process in replicas.values():
            process.terminate()
        codes = {name: process.wait(120) for name, process in replicas.items()}
    assert sorted(codes.values()) == [-signal.SIGKILL, 0]
