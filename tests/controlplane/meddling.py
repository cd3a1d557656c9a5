"""An HTTPS proxy before the API server that does what networks and servers do to clients: refuse, cut, fall silent.

What it passes on it does not change. It hears of each request before the API server does, and of each answer before the
client does: that is where a test can strike.
"""

import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

from tests.controlplane.world import World, write_kubeconfig

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass(slots=True)
class Refusal:
    """Requests that match are answered with `status` instead of being passed on, `times` times."""

    method: str
    path: re.Pattern[str]
    status: int
    reason: str
    times: int
    headers: dict[str, str] = field(default_factory=dict)


class Meddler:
    """`kubeconfig` leads through it. `requests` are what came, as `GET /path?query`, with those that were refused."""

    def __init__(self, world: World, folder: Path) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "meddler.crt"))
        self.upstream = urlsplit(world.server)
        self.trust = ssl.create_default_context(cafile=str(world.authority))
        self.requests: list[str] = []
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.after: Callable[[str, str], None] = lambda method, path: None
        self._lock = threading.Lock()
        self._refusals: list[Refusal] = []
        self._open: set[socket.socket] = set()
        self._streams: set[Callable[[bytes], None]] = set()
        self._heard = threading.Event()
        self._heard.set()
        self._server = _Server(self)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.server = f"https://127.0.0.1:{self._server.server_port}"
        self.kubeconfig = write_kubeconfig(folder / "kubeconfig.meddler", self.server, folder / "meddler.crt")
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def refuse(self, method: str, path: str, status: int, reason: str = "", times: int = 1, **headers: str) -> None:
        """`path` is a regular expression; `Retry_After="2"` is a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self._lock:
            self._refusals.append(Refusal(method, re.compile(path), status, reason, times, named))

    def cut(self) -> None:
        """End every connection there is, in the middle of whatever it carries."""
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def tell(self, line: str) -> None:
        """Says this in every watch that is open, as the API server would: a bookmark before its minute is over."""
        with self._lock:
            for stream in self._streams:
                stream(line.encode() + b"\n")

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Nothing passes, in either direction; connections stay open and are accepted."""
        self._heard.clear()
        try:
            yield
        finally:
            self._heard.set()

    def end(self) -> None:
        self._heard.set()
        self.cut()
        self._server.shutdown()
        self._server.server_close()

    # --- for the handlers

    def wait_heard(self) -> None:
        self._heard.wait()

    def hold(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def drop(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    @contextmanager
    def streaming(self, send: Callable[[bytes], None]) -> Iterator[Callable[[bytes], None]]:
        """One thing is said at a time, by whomever."""

        def send_alone(part: bytes) -> None:
            with self._lock:
                send(part)

        with self._lock:
            self._streams.add(send)
        try:
            yield send_alone
        finally:
            with self._lock:
                self._streams.discard(send)

    def refusal_of(self, method: str, path: str) -> Refusal | None:
        with self._lock:
            self.requests.append(f"{method} {path}")
            for refusal in self._refusals:
                if refusal.times and refusal.method == method and refusal.path.search(path):
                    refusal.times -= 1
                    return refusal
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, meddler: Meddler) -> None:
        self.meddler = meddler
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are what it is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.meddler = self.server.meddler
        self.meddler.hold(self.connection)

    def finish(self) -> None:
        self.meddler.drop(self.connection)
        with suppress(OSError):
            super().finish()

    def pass_on(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.meddler.wait_heard()
        if refusal := self.meddler.refusal_of(self.command, self.path):
            self._refuse(refusal)
            return
        self.meddler.before(self.command, self.path)
        upstream = self.meddler.upstream
        behind = http.client.HTTPSConnection(upstream.hostname or "", upstream.port, context=self.meddler.trust)
        try:
            kept = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            behind.request(self.command, self.path, content or None, {**kept, "Host": upstream.netloc})
            answer = behind.getresponse()
            self.meddler.hold(behind.sock)
            self._answer(answer)
        finally:
            if behind.sock is not None:
                self.meddler.drop(behind.sock)
            behind.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815 (names of the base class)

    def _answer(self, answer: http.client.HTTPResponse) -> None:
        whole = None if "watch=" in self.path else answer.read()
        if whole is not None:
            self.meddler.after(self.command, self.path)
        self.meddler.wait_heard()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header(*(("Transfer-Encoding", "chunked") if whole is None else ("Content-Length", str(len(whole)))))
        self.end_headers()
        if whole is not None:
            self.wfile.write(whole)
            return
        with self.meddler.streaming(lambda part: self._send_chunk(part)) as send:
            while part := answer.read1(65536):
                self.meddler.wait_heard()
                send(part)
        self.wfile.write(b"0\r\n\r\n")

    def _send_chunk(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))

    def _refuse(self, refusal: Refusal) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": refusal.status}
        body = json.dumps({**status, "reason": refusal.reason, "message": "refused by the tests"}).encode()
        self.send_response(refusal.status)
        for name, value in {**refusal.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (as inherited)
        """It is the test that tells."""
