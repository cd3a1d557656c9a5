"""The endpoint of trainers' reports: who is heard, what is kept, and in which words others are refused."""

import json
from typing import Any

import pytest

from controller.lifecycle.observed import Report
from controller.lifecycle.progressing import SILENCE_SECONDS
from controller.progress.callers import REFUSED_SECONDS, Callers
from controller.progress.endpoint import BURST, PER_SECOND, Answer, Endpoint
from controller.progress.reports import Reports
from trainer.contract.report import AUDIENCE, MAX_REPORT_BYTES

LABELS = {
    "grpo.dev/job": "demo",
    "jobset.sigs.k8s.io/job-index": "0",
    "batch.kubernetes.io/job-completion-index": "0",
    "jobset.sigs.k8s.io/jobset-uid": "js-1",
    "jobset.sigs.k8s.io/restart-attempt": "2",
}
REPORT = {"attempt": 2, "heartbeat": 7, "step": 3, "total_steps": 10, "reward_mean": 0.5, "newer": "key"}


def pod(name: str = "demo-slice-0-0-abcde", uid: str = "pod-1", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "team", "uid": uid, "labels": LABELS | labels}}


class Cluster:
    """What the endpoint asks: reviews of tokens, pods and jobs that are watched, and the time."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.reviews = 0
        self.tokens = {"good": ("demo-slice-0-0-abcde", "pod-1", [AUDIENCE])}
        self.pods = {"team/demo-slice-0-0-abcde": pod()}
        self.jobs = {"team/demo": {"metadata": {"uid": "job-1"}}}
        self.woken: list[str] = []
        self.leads = True
        self.reports = Reports(self.woken.append, self.now)
        callers = Callers(self.review, self.pods.get, self.jobs.get, self.now)
        self.endpoint = Endpoint(callers, self.reports, lambda: self.leads, self.now)

    def now(self) -> float:
        return self.time

    def review(self, body: dict[str, Any]) -> dict[str, Any]:
        self.reviews += 1
        found = self.tokens.get(body["spec"]["token"])
        if found is None:
            return {"status": {"authenticated": False}}
        named = zip(("name", "uid"), found[:2], strict=True)
        extra = {f"authentication.kubernetes.io/pod-{key}": [value] for key, value in named if value}
        user = {"username": "system:serviceaccount:team:default", "extra": extra}
        return {"status": {"authenticated": True, "audiences": found[2], "user": user}}

    def post(self, token: str | None = "good", **changes: Any) -> Answer:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.endpoint.take(headers, json.dumps(REPORT | changes).encode())

    @property
    def latest(self) -> Report:
        report = self.reports.latest("job-1")
        assert report is not None
        return report


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_report_of_process_0_is_kept_for_its_job(cluster: Cluster) -> None:
    """The token's pod leads to the job; keys of a newer trainer are left aside; the job is looked at again."""
    assert cluster.post() == Answer(204)
    assert (cluster.latest.step, cluster.latest.reward_mean, cluster.latest.restart) == (3, 0.5, 2)
    assert cluster.latest.job_set_uid == "js-1"
    assert cluster.woken == ["team/demo"]
    assert cluster.reports.latest("job-2") is None


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (lambda c: c.tokens.clear(), 401, "not a pod's for the audience"),
        (lambda c: c.tokens.update(good=("demo-slice-0-0-abcde", "pod-1", ["kubernetes"])), 401, "audience"),
        (lambda c: c.tokens.update(good=("", "", [AUDIENCE])), 401, "not a pod's"),
        (lambda c: c.tokens.update(good=("other", "pod-9", [AUDIENCE])), 403, "pod other in team is not one of a"),
        (lambda c: c.pods.update({"team/demo-slice-0-0-abcde": pod(uid="pod-2")}), 403, "is not one of a GRPOJob"),
        (lambda c: c.jobs.clear(), 403, "belongs to the GRPOJob team/demo, and there is none"),
        (
            lambda c: c.pods.update(
                {"team/demo-slice-0-0-abcde": pod(**{"batch.kubernetes.io/job-completion-index": "1"})}
            ),
            403,
            "is not process 0 of team/demo",
        ),
    ],
    ids=["no token", "audience", "no pod", "stranger", "another uid", "no job", "not process 0"],
)
def test_others_are_refused_in_words(cluster: Cluster, change: Any, status: int, words: str) -> None:
    """A token that is not the API server's, not for us, or not of process 0 of a job that exists, is not heard."""
    change(cluster)
    answer = cluster.post()
    assert answer.status == status
    assert words in answer.words
    assert cluster.reports.latest("job-1") is None


def test_a_caller_without_a_token_costs_no_review(cluster: Cluster) -> None:
    """Nor does one with a token that no API server could have made."""
    assert cluster.post(token=None) == Answer(401, "no bearer token")
    assert cluster.post(token="x" * 10_000).status == 401
    assert cluster.reviews == 0


def test_a_token_is_reviewed_once_a_minute(cluster: Cluster) -> None:
    """What the API server said is believed for a minute, its no for ten seconds."""
    for _ in range(3):
        cluster.post()
    assert cluster.reviews == 1
    cluster.time += 61
    cluster.post()
    assert cluster.reviews == 2
    cluster.post(token="bad")
    cluster.post(token="bad")
    assert cluster.reviews == 3
    cluster.time += REFUSED_SECONDS + 1
    cluster.post(token="bad")
    assert cluster.reviews == 4


def test_a_pod_that_is_gone_is_heard_no_more(cluster: Cluster) -> None:
    """Though its token is still believed: pods are looked up each time."""
    cluster.post()
    cluster.pods.clear()
    assert cluster.post().status == 403


def test_who_reports_too_often_is_told_to_wait(cluster: Cluster) -> None:
    """A job may send a few at once and then one in two seconds; what is over that changes nothing."""
    answers = [cluster.post(step=number) for number in range(int(BURST) + 1)]
    assert [answer.status for answer in answers] == [204] * int(BURST) + [429]
    assert answers[-1] == Answer(429, "team/demo reports too often", retry_after=2)
    assert cluster.latest.step == BURST - 1
    cluster.time += 1 / PER_SECOND
    assert cluster.post(step=9).status == 204


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": -1}, "step: Input should be greater than or equal to 0"),
        ({"step": "3"}, "step: Input should be a valid integer"),
        ({"reward_mean": float("inf")}, "reward_mean: Input should be a finite number"),
        ({"doing": "x" * 300}, "doing: String should have at most 256 characters"),
    ],
)
def test_a_report_that_cannot_be_read_is_refused(cluster: Cluster, change: dict[str, Any], words: str) -> None:
    """With the key and what is wrong with it; the last good one stays."""
    cluster.post()
    assert cluster.post(**change) == Answer(400, words)
    assert cluster.latest.step == 3


@pytest.mark.parametrize(
    ("method", "path", "length", "status"),
    [
        ("POST", "/other", "10", 404),
        ("GET", "/progress", "0", 405),
        ("POST", "/progress", "", 411),
        ("POST", "/progress", "-1", 411),
        ("POST", "/progress", str(MAX_REPORT_BYTES + 1), 413),
    ],
)
def test_what_is_no_report_is_refused_unread(
    cluster: Cluster, method: str, path: str, length: str, status: int
) -> None:
    """Another path or method, or a body of no length or too great a one, is answered before it is read."""
    answer = cluster.endpoint.refuses(method, path, {"Content-Length": length})
    assert answer is not None
    assert (answer.status, bool(answer.words)) == (status, True)


def test_a_replica_that_does_not_lead_takes_nothing(cluster: Cluster) -> None:
    """It says so, so that the trainer asks again."""
    cluster.leads = False
    answer = cluster.endpoint.refuses("POST", "/progress", {"Content-Length": "10"})
    assert answer == Answer(503, "this replica does not lead", retry_after=5)


def test_a_heartbeat_that_stands_still_is_timed(cluster: Cluster) -> None:
    """By our clock, over reports that arrive; it begins anew with another beat or another pod."""
    for seconds, heartbeat, silent in ((0, 7, 0), (20, 7, 20), (20, 7, 40), (20, 8, 0), (5, 8, 5)):
        cluster.time += seconds
        cluster.post(heartbeat=heartbeat)
        assert cluster.latest.silent_seconds == silent
    cluster.time += 30
    assert cluster.latest.age_seconds == 30
    cluster.tokens["new"] = ("demo-slice-0-0-xyzzy", "pod-2", [AUDIENCE])
    cluster.pods["team/demo-slice-0-0-xyzzy"] = pod("demo-slice-0-0-xyzzy", "pod-2")
    cluster.post("new", heartbeat=8)
    assert cluster.latest.silent_seconds == 0


def test_a_job_is_woken_by_news_alone(cluster: Cluster) -> None:
    """A beat that goes on says nothing that a status shows; a step, a heartbeat that stops, an end of silence do."""
    for heartbeat, step, woken in ((1, 1, 1), (2, 1, 1), (3, 2, 2), (3, 2, 3), (3, 2, 3), (4, 2, 4)):
        cluster.time += 20
        cluster.post(heartbeat=heartbeat, step=step)
        assert len(cluster.woken) == woken
    cluster.time += SILENCE_SECONDS
    cluster.post(heartbeat=5, step=2)
    assert len(cluster.woken) == 5  # it was told that nothing is heard
