"""The way of a report: what the trainer posts arrives through the operator's HTTPS server, and so do refusals."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.https.certificates import issue, server_context
from controller.https.server import Server
from controller.progress.callers import Callers
from controller.progress.endpoint import Endpoint
from controller.progress.reports import Reports
from trainer.contract.report import AUDIENCE, ProgressReport
from trainer.reporting import Door, RefusedError

LABELS = {
    "grpo.dev/job": "demo",
    "jobset.sigs.k8s.io/job-index": "0",
    "batch.kubernetes.io/job-completion-index": "0",
}
REPORT = ProgressReport(attempt=0, heartbeat=3, step=2, total_steps=5, reward_mean=0.5)


def review(body: dict) -> dict:  # type: ignore[type-arg]
    """As the API server answers for the one token `good`."""
    extra = {"authentication.kubernetes.io/pod-name": ["pod"], "authentication.kubernetes.io/pod-uid": ["pod-1"]}
    user = {"username": "system:serviceaccount:team:default", "extra": extra}
    return {"status": {"authenticated": body["spec"]["token"] == "good", "audiences": [AUDIENCE], "user": user}}


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def door(reports: Reports, tmp_path: Path) -> Iterator[Door]:
    pods = {"team/pod": {"metadata": {"uid": "pod-1", "labels": LABELS}}}
    callers = Callers(review, pods.get, {"team/demo": {"metadata": {"uid": "job-1"}}}.get)
    certificate = issue(["127.0.0.1"], datetime.now(UTC))
    server = Server("127.0.0.1", 0, server_context(certificate), Endpoint(callers, reports))
    server.start()
    (tmp_path / "ca.crt").write_bytes(certificate.authorities)
    (tmp_path / "token").write_text("good")
    yield Door(f"https://127.0.0.1:{server.address[1]}/progress", tmp_path)
    server.stop()


def test_a_report_arrives_as_it_was_posted(door: Door, reports: Reports) -> None:
    """Trainer and endpoint agree on address, token, authority and body."""
    door.post(REPORT)
    found = reports.latest("job-1")
    assert found is not None
    assert (found.step, found.total_steps, found.reward_mean) == (2, 5, 0.5)


def test_a_refusal_arrives_in_words(door: Door, tmp_path: Path) -> None:
    """The trainer's log tells what the endpoint said, and the trainer keeps to the time that it asked for."""
    (tmp_path / "token").write_text("bad")
    with pytest.raises(RefusedError, match=r"it answered 401 \(the token is not a pod's for the audience"):
        door.post(REPORT)
    (tmp_path / "token").write_text("good")
    for _ in range(5):
        door.post(REPORT)
    with pytest.raises(RefusedError, match="429") as refused:
        door.post(REPORT)
    assert refused.value.wait_seconds == 2
