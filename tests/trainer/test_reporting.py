"""Reports to the operator: what is told, how often, and that an endpoint that fails disturbs nothing."""

import json
import logging
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from trainer.reporting import BEAT_SECONDS, LONGEST_WAIT_SECONDS, NEWS_SECONDS, Door, Reporter
from trainer.watchdog import Heartbeat

ROW = {
    "step": 3,
    "time/step_s": 2.0,
    "reward/total/mean": 0.25,
    "throughput/completion_tokens_per_s_per_device": 100.0,
}


class Endpoint(ThreadingHTTPServer):
    """Answers each post with `status` after `delay` seconds, and keeps what was posted with its token."""

    daemon_threads = True

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.status, self.delay, self.wait = 204, 0.0, ""
        self.posted: list[tuple[str, dict[str, Any]]] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of these tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posted.append((self.headers["Authorization"], body))
        time.sleep(self.server.delay)
        self.send_response(self.server.status)
        if self.server.wait:
            self.send_header("Retry-After", self.server.wait)
        self.end_headers()
        self.wfile.write(b"no such pod" if self.server.status >= 400 else b"")

    def log_message(self, *_: Any) -> None:
        pass


class Setting:
    """A reporter whose clock is set by hand, and the endpoint that it reports to."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.folder, self.endpoint, self.time = folder, Endpoint(authority), 1000.0
        authority.cert_pem.write_to_path(str(folder / "ca.crt"))
        (folder / "token").write_text("first\n")
        self.heartbeat = Heartbeat()
        self.door = Door(f"https://127.0.0.1:{self.endpoint.server_port}/progress", folder)
        self.reporter = Reporter(self.door, self.heartbeat, attempt=1, total_steps=10, now=lambda: self.time)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [body for _, body in self.endpoint.posted]


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(tmp_path)
    yield setting
    setting.endpoint.shutdown()
    setting.endpoint.server_close()


def test_a_report_tells_where_the_run_stands(setting: Setting) -> None:
    """Step, reward, speed, what is left, the newest checkpoint, the heartbeat, and what is under way."""
    setting.reporter.begin(2, lambda: 2)
    setting.heartbeat.begin("rollout", 4)
    setting.reporter.tell(ROW)
    setting.reporter.report()
    (report,) = setting.told
    assert report == {
        "attempt": 1,
        "heartbeat": 1,
        "doing": "rollout of step 4",
        "step": 3,
        "total_steps": 10,
        "reward_mean": 0.25,
        "tokens_per_second_per_device": 100.0,
        "eta_seconds": 14.0,
        "checkpoint_step": 2,
        "patience_seconds": None,
    }


def test_a_number_that_is_none_is_left_out(setting: Setting) -> None:
    """A step whose completions could not be scored has no reward, and is told all the same."""
    setting.reporter.tell(ROW | {"reward/total/mean": float("nan")})
    setting.reporter.report()
    assert (setting.told[0]["reward_mean"], setting.told[0]["step"]) == (None, 3)


def test_steps_are_told_soon_and_silence_now_and_then(setting: Setting) -> None:
    """A step is told at most every five seconds, the newest of those done; without one, that the run lives."""
    reporter = setting.reporter
    assert reporter.is_due()
    reporter.report()
    assert not reporter.is_due()
    setting.time += NEWS_SECONDS
    assert not reporter.is_due()
    for step in (4, 5):
        reporter.tell(ROW | {"step": step})
    assert reporter.is_due()
    reporter.report()
    setting.time += BEAT_SECONDS - 1
    assert not reporter.is_due()
    setting.time += 1
    assert reporter.is_due()
    assert [report["step"] for report in setting.told] == [0, 5]


def test_each_report_takes_the_token_of_its_time(setting: Setting) -> None:
    """A kubelet renews it in its file."""
    setting.reporter.report()
    (setting.folder / "token").write_text("second")
    setting.reporter.report()
    assert [token for token, _ in setting.endpoint.posted] == ["Bearer first", "Bearer second"]


def test_an_endpoint_that_fails_is_told_once_and_tried_ever_more_seldom(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning with what it said; then silence until it works again, which is told; the newest report is sent."""
    caplog.set_level(logging.INFO, "trainer")
    setting.endpoint.status = 403
    waits = []
    for step in range(1, 7):
        setting.reporter.tell(ROW | {"step": step})
        setting.reporter.report()
        begun = setting.time
        while not setting.reporter.is_due():
            setting.time += 1
        waits.append(setting.time - begun)
    assert waits == [5, 10, 20, 40, LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS]
    (warning,) = caplog.messages
    assert warning == (
        f"progress could not be reported to {setting.door.url}: it answered 403 (no such pod); "
        "training goes on, and it is tried again"
    )
    setting.endpoint.status = 204
    setting.reporter.report()
    assert caplog.messages[1:] == [f"progress is reported to {setting.door.url} again"]
    assert setting.told[-1]["step"] == 6


def test_an_endpoint_may_ask_for_time(setting: Setting) -> None:
    """`Retry-After` is kept, up to a minute."""
    setting.endpoint.status, setting.endpoint.wait = 429, "17"
    setting.reporter.report()
    setting.time += 16
    assert not setting.reporter.is_due()
    setting.time += 1
    assert setting.reporter.is_due()


@pytest.mark.parametrize("fault", ["down", "stranger", "no token", "no authority"])
def test_no_fault_of_the_way_reaches_training(
    setting: Setting, fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody there, a certificate that is not trusted, a file that is missing: each is one warning."""
    match fault:
        case "down":
            setting.endpoint.shutdown()
            setting.endpoint.server_close()
        case "stranger":
            trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        case "no token":
            (tmp_path / "token").unlink()
        case "no authority":
            (tmp_path / "ca.crt").unlink()
    setting.reporter.report()
    setting.reporter.report()
    (warning,) = caplog.messages
    assert warning.startswith("progress could not be reported")


def test_a_slow_endpoint_holds_up_nobody(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it does not answer, steps are told and the run ends."""
    monkeypatch.setattr("trainer.reporting._ANSWER_SECONDS", 60.0)
    setting.endpoint.delay = 60.0
    setting.reporter.start()
    while not setting.endpoint.posted:
        time.sleep(0.01)
    begun = time.monotonic()
    for step in range(1, 100):
        setting.reporter.tell(ROW | {"step": step})
    setting.reporter.close()
    assert time.monotonic() - begun < 30


def test_the_last_step_is_told_at_the_end(setting: Setting) -> None:
    """However soon after the one before."""
    setting.reporter.start()
    while not setting.endpoint.posted:
        time.sleep(0.01)
    setting.reporter.tell(ROW | {"step": 10})
    setting.reporter.close()
    assert setting.told[-1]["step"] == 10


def test_without_an_endpoint_nothing_is_told() -> None:
    """As under `grpoctl run` and `render`: no thread, no warning."""
    before = threading.enumerate()
    reporter = Reporter(None, Heartbeat(), attempt=0, total_steps=10)
    reporter.start()
    reporter.tell(ROW)
    assert set(threading.enumerate()) <= set(before)
    reporter.close()
