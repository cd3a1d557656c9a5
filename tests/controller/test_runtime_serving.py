"""Probes, metrics and log lines: what a kubelet, Prometheus and a log collector read."""

import io
import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.runtime import logs
from controller.runtime.metrics import Metrics, QueueMetrics, ReconcileMetrics
from controller.runtime.queue import WorkQueue
from controller.runtime.serving import Serving
from controller.runtime.workers import Result, Workers


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    yield stream
    root.handlers[:], root.level = handlers, level


def test_a_probe_says_what_is_not_ready() -> None:
    """200 where every check is content, else 503 with each check and its sentence; other pages are not there."""
    wrong: list[str | None] = ["jobs are not known yet"]
    checks = {"watches": lambda: wrong[0], "certificate": lambda: None}
    serving = Serving(("127.0.0.1", 0), {"alive": lambda: None}, checks, lambda: ("text/plain", b""))
    serving.start()
    assert fetch(serving.port, "/healthz") == (200, "[+] alive\n")
    assert fetch(serving.port, "/readyz") == (503, "[-] watches: jobs are not known yet\n[+] certificate\n")
    wrong[0] = None
    assert fetch(serving.port, "/readyz")[0] == 200
    assert fetch(serving.port, "/secrets")[0] == 404
    serving.stop()
    with pytest.raises(urllib.error.URLError):
        fetch(serving.port, "/healthz")


def three_passes(metrics: Metrics) -> None:
    """Two that are good and a failed one, of a queue and a worker that report."""
    observer = QueueMetrics(metrics, "jobs")
    queue = WorkQueue(observer=observer, first_delay=0.01)
    observer.show(queue)
    enough, outcomes = threading.Event(), iter([Result(), ValueError("once"), Result()])

    def reconcile(key: str) -> Result:
        outcome = next(outcomes)
        if isinstance(outcome, Result):
            return outcome
        threading.Timer(0.2, enough.set).start()
        raise outcome

    workers = Workers(queue, reconcile, 1, observer=ReconcileMetrics(metrics, "jobs"))
    workers.start()
    queue.add("ns/a")
    queue.add("ns/b")
    assert enough.wait(60)
    workers.stop()


def scrape(metrics: Metrics) -> dict[tuple[str, ...], float]:
    serving = Serving(("127.0.0.1", 0), {}, {}, metrics.page)
    serving.start()
    status, page = fetch(serving.port, "/metrics")
    serving.stop()
    assert status == 200
    families = text_string_to_metric_families(page)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_metrics_have_the_names_that_dashboards_for_controllers_know() -> None:
    """A scrape after two good passes and a failed one counts them, the queue's keys and the client's requests."""
    metrics = Metrics()
    metrics.show_leading("grpo-operator", lambda: True)
    metrics.requested("GET", 200)
    metrics.requested("PATCH", 0)
    three_passes(metrics)
    expected = {
        ("controller_runtime_reconcile_total", "jobs", "success"): 2,
        ("controller_runtime_reconcile_total", "jobs", "error"): 1,
        ("controller_runtime_reconcile_errors_total", "jobs"): 1,
        ("controller_runtime_reconcile_time_seconds_count", "jobs"): 3,
        ("workqueue_adds_total", "jobs"): 3,
        ("workqueue_retries_total", "jobs"): 1,
        ("workqueue_depth", "jobs"): 0,
        ("workqueue_queue_duration_seconds_count", "jobs"): 3,
        ("workqueue_work_duration_seconds_count", "jobs"): 3,
        ("workqueue_unfinished_work_seconds", "jobs"): 0,
        ("workqueue_longest_running_processor_seconds", "jobs"): 0,
        ("rest_client_requests_total", "200", "GET"): 1,
        ("rest_client_requests_total", "<error>", "PATCH"): 1,
        ("leader_election_master_status", "grpo-operator"): 1,
    }
    found = scrape(metrics)
    assert {name: found.get(name) for name in expected} == expected
    assert found[("process_resident_memory_bytes",)] > 0
    assert not any(name[0].endswith("_created") for name in found)


def test_a_log_line_carries_what_is_worked_on(logged: io.StringIO) -> None:
    """JSON, one object a line, with the fields of the pass it belongs to; a traceback is a field."""
    logs.configure("json", "info", logged)
    with logs.fields(namespace="ns", job="a"), logs.fields(uid="u-1"):
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("controller").exception("reconcile failed in %.1f s", 0.25)
    logging.getLogger("controller").info("outside")
    logging.getLogger("controller").debug("not asked for")
    inside, outside = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert inside["message"] == "reconcile failed in 0.2 s"
    assert {name: inside[name] for name in ("level", "namespace", "job", "uid")} == {
        "level": "error",
        "namespace": "ns",
        "job": "a",
        "uid": "u-1",
    }
    assert inside["traceback"].endswith("ValueError: broken")
    assert inside["time"].endswith("Z")
    assert set(outside) == {"time", "level", "logger", "message"}


def test_a_log_line_for_people_is_text(logged: io.StringIO) -> None:
    """Level, message and fields on one line."""
    logs.configure("text", "debug", logged)
    with logs.fields(namespace="ns", job="a"):
        logging.getLogger("controller").debug("looked at")
    assert logged.getvalue().endswith("Z debug looked at namespace=ns job=a\n")
