"""An API server that refuses, hangs, cuts and forgets: jobs come to their end, each with one JobSet."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.history import History
from tests.controlplane.meddling import Meddler
from tests.controlplane.operating import Operating


@pytest.fixture
def meddler(operating: Operating, tmp_path: Path) -> Iterator[Meddler]:
    """Between the operator and the API server; the test's own calls go past it."""
    meddler = Meddler(operating.world, tmp_path)
    operating.start(kubeconfig=str(meddler.kubeconfig))
    yield meddler
    operating.stop()
    meddler.end()


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
    assert status["attempts"]["restarts"] + status["attempts"]["disruptions"] == 2
    assert (len(history.job_sets), history.ends) == (1, ["Succeeded"])
