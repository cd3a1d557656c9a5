"""An API server that refuses, hangs, cuts and forgets: jobs come to their end, each with one JobSet."""

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo

import pytest

from controller.cluster.resources import GRPOJOBS
from controller.runtime.election import LEASES
from tests.controlplane.history import History
from tests.controlplane.meddling import Meddler
from tests.controlplane.operating import Operating


@pytest.fixture
def meddler(operating: Operating, meddler: Meddler) -> Iterator[Meddler]:
    """Between the operator and the API server; the test's own calls go past it."""
    operating.start(kubeconfig=str(meddler.kubeconfig))
    yield meddler
    operating.stop()


def test_writes_that_are_refused(operating: Operating, meddler: Meddler) -> None:
    """Each kind of write meets 409, 429 with a time to wait, 500, and a commit whose answer is lost."""
    writes = ("POST /configmaps", "POST /jobsets", "PUT /grpojobs/.*/status", "POST /events", "DELETE /grpojobs")
    for write in writes:
        method, path = write.split()
        meddler.refuse(method, path, 409, "Conflict")
        meddler.refuse(method, path, 429, "TooManyRequests", Retry_After="1")
        meddler.refuse(method, path, 500, "InternalError")
    lost: set[str] = set()

    def lose_once(method: str, path: str) -> None:
        kind = f"{method} {path.rpartition('/')[2].partition('?')[0]}"
        if method != "GET" and kind not in lost:
            lost.add(kind)
            raise ConnectionAbortedError

    meddler.after = lose_once
    with History(operating, "refused") as history:
        operating.apply("refused", [["1"]], lifecycle={"ttlSecondsAfterFinished": 0})
        operating.wait(lambda: history.over, "the job's end and its deletion", 120)
    assert (len(history.job_sets), history.ends) == (1, ["Succeeded"])
    assert history.last["attempts"]["restarts"] == 1
    assert {"POST configmaps", "POST jobsets", "PUT status"} <= lost


def test_watches_that_end_and_a_server_that_begins_anew(operating: Operating, meddler: Meddler) -> None:
    """Connections are cut while a job runs, the network falls silent, and the API server is restarted: what happened
    meanwhile is seen afterwards, and counted.
    """
    with History(operating, "cut") as history:
        operating.apply("cut", [["wait:1 1"], ["wait:1 1"], ["wait:1 0"]])
        operating.wait(lambda: operating.job_set("cut"), "the JobSet")
        meddler.cut()
        operating.wait(lambda: operating.attempts("cut"), "the first attempt's end")
        with meddler.silence():
            operating.wait(
                lambda: (operating.job_set("cut") or {}).get("status", {}).get("restarts") == 2, "the second"
            )
        operating.world.stop("kube-apiserver")
        operating.world.start("kube-apiserver")
        status = operating.wait_phase("cut", "Succeeded", seconds=150)
        operating.wait(lambda: history.ends, "the end in the history, whose watches were ended too")
    assert status["attempts"]["restarts"] + status["attempts"]["disruptions"] == 2
    assert (len(history.job_sets), history.ends) == (1, ["Succeeded"])


def set_clock(monkeypatch: pytest.MonkeyPatch, away: timedelta) -> None:
    """What this machine's clock tells the operator, wherever it asks."""

    class Stepped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + away

    for name, module in list(sys.modules.items()):
        if name.startswith("controller.") and vars(module).get("datetime") is not None:
            monkeypatch.setattr(module, "datetime", Stepped)


def test_a_clock_that_is_set(operating: Operating, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's clock steps hours ahead, then hours back: no deadline comes early or late; who leads leads on."""
    hour = {"terminationGracePeriodSeconds": 5, "activeDeadlineSeconds": 3600, "startupDeadlineSeconds": 1800}
    operating.start(leader_election=True, own_namespace=operating.namespace)
    operating.apply("runs", [["run"]], lifecycle=hour)
    operating.apply("stays", [["0"]], lifecycle={"ttlSecondsAfterFinished": 3600})
    operating.apply("waits", lifecycle=hour, nodeSelector={"test.example/no-such": "node"})
    operating.wait_phase("runs", "Running")
    operating.wait_phase("stays", "Succeeded")
    operating.wait(lambda: operating.condition("waits", "Provisioned")[1] == "Unschedulable", "what it waits for")
    for name, hours in (("ahead", 5), ("back", -5)):
        set_clock(monkeypatch, timedelta(hours=hours))
        short = {"terminationGracePeriodSeconds": 5, "activeDeadlineSeconds": 2, "ttlSecondsAfterFinished": 2}
        operating.apply(name, [["run"]], lifecycle=short)
        with History(operating, name) as history:
            operating.wait(lambda history=history: history.over, "a deadline, and a deletion")
        assert "DeadlineExceeded" in history.reasons
        look_again(operating, "stays", "runs", "waits")
    assert operating.status("runs")["phase"] == "Running"
    assert operating.status("stays")["phase"] == "Succeeded"
    assert operating.attempts("waits") == []
    lease = operating.get(LEASES, "grpo-operator")
    assert lease is not None
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("test", 0)


def look_again(operating: Operating, finished: str, *names: str) -> None:
    """Each job is reconciled once more: a status that somebody broke is written anew, but not a finished one's."""
    operating.api.patch(GRPOJOBS, finished, operating.namespace, {"metadata": {"labels": {"test": "again"}}})
    for name in names:
        operating.api.patch(GRPOJOBS, name, operating.namespace, {"status": {"phase": None}}, subresource="status")
    for name in names:
        operating.wait(lambda name=name: operating.status(name).get("phase"), f"another look at {name}")
