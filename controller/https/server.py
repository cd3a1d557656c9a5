"""An HTTPS server: what a `Service` answers to a request, whatever clients do meanwhile.

Each connection has a thread of its own, so a slow client holds up nobody; what it may take is bounded in time, size and
number. A new certificate serves the next connection. It knows no Kubernetes: what it answers is given to it.
"""

import logging
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Protocol

Doing = Literal["opening", "idle", "reading", "answering"]

log = logging.getLogger(__name__)


class Answer(Protocol):
    """A status of HTTP, a text (JSON where it begins with a brace), and when to come again, in seconds."""

    @property
    def status(self) -> int: ...
    @property
    def words(self) -> str: ...
    @property
    def retry_after(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Told:
    """An `Answer`."""

    status: int
    words: str = ""
    retry_after: int | None = None


class Service(Protocol):
    """What one server answers. It may be asked by many threads at once."""

    def refuses(self, method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        """What can be said before the body is read; None: it is wanted."""

    def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a request that was not refused."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one server. The API server closes an idle connection after 90 s; we wait longer, so that it is never late."""

    body_bytes: int = 8 * 2**20
    connections: int = 128
    seconds: Mapping[Doing, float] = field(
        default_factory=lambda: {"opening": 10.0, "idle": 120.0, "reading": 10.0, "answering": 30.0}
    )


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    doing: Doing
    since: float

    def turn_to(self, doing: Doing) -> None:
        self.doing, self.since = doing, time.monotonic()

    def cut(self) -> None:
        """Its thread wakes from whatever it waits for. Not `SSLSocket.shutdown`, which would go on in plain text."""
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class Server:
    """Serves posts, and GET /healthz, from `start` to `stop`; `address` is where, with the port that 0 became."""

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext, service: Service, limits: Limits | None = None
    ) -> None:
        self._http = _Http(host, port, context, service, limits or Limits())
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._http.serve_forever, name="https", daemon=True),
            threading.Thread(target=self._watch_clients, name="https-clients", daemon=True),
        ]

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._http.server_address[:2]
        return str(host), int(port)

    def use(self, context: ssl.SSLContext) -> None:
        """Serve the next connections with another certificate."""
        self._http.context = context

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No new connections; those that wait are cut, an answer under way is finished by its thread."""
        self._ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._http.cut(lambda one: one.doing != "answering")

    def _watch_clients(self) -> None:
        while not self._ended.wait(1.0):
            self._http.cut_late_ones()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: str, port: int, context: ssl.SSLContext, service: Service, limits: Limits) -> None:
        self.context, self.service, self.limits = context, service, limits
        self._lock = threading.Lock()
        self._connections: dict[Any, _Connection] = {}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Request)

    def server_bind(self) -> None:
        """Without the look-up of its own name, which takes seconds where nobody serves names."""
        socketserver.TCPServer.server_bind(self)

    def get_request(self) -> tuple[Any, Any]:
        accepted, address = self.socket.accept()
        accepted.settimeout(max(self.limits.seconds.values()))
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The handshake is the client's pace too, so it is left to the connection's thread.
        return self.context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False), address

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._admit(request):
            log.warning("refused a connection from %s: all %d are busy", client_address[0], self.limits.connections)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def _admit(self, request: Any) -> bool:
        """Where all places are taken, the one that has waited longest for its client gives way."""
        with self._lock:
            waiting = [one for one in self._connections.values() if one.doing != "answering"]
            if len(self._connections) >= self.limits.connections:
                if not waiting:
                    return False
                longest = min(waiting, key=lambda one: one.since)
                del self._connections[longest.socket]
                longest.cut()
            self._connections[request] = _Connection(request, "opening", time.monotonic())
        return True

    def connection(self, request: Any) -> _Connection:
        with self._lock:
            return self._connections.get(request) or _Connection(request, "opening", time.monotonic())

    def cut(self, chosen: Callable[[_Connection], bool]) -> None:
        with self._lock:
            for one in self._connections.values():
                if chosen(one):
                    one.cut()

    def cut_late_ones(self) -> None:
        now = time.monotonic()
        self.cut(lambda one: now - one.since > self.limits.seconds[one.doing])

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        # The base shuts down first, which for TLS would wait for the client.
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is no error of ours."""
        log.debug("connection from %s ended", client_address, exc_info=True)


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # status, headers and body leave as one packet
    server: _Http

    def setup(self) -> None:
        super().setup()
        self._place = self.server.connection(self.request)

    def parse_request(self) -> bool:
        self._place.turn_to("reading")
        return super().parse_request()

    def handle_one_request(self) -> None:
        super().handle_one_request()
        self._place.turn_to("idle")

    def do_GET(self) -> None:
        healthy = self.path.partition("?")[0] == "/healthz"
        self._send(Told(200, "ok") if healthy else Told(404, "not found"))

    def do_POST(self) -> None:
        path, length = self.path.partition("?")[0], self.headers.get("Content-Length", "")
        headers = dict(self.headers.items())
        refusal = self._safely(lambda: self.server.service.refuses("POST", path, headers)) or self._bounded(length)
        if refusal is not None:
            self.close_connection = True  # its body is not read
            self._send(refusal)
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return
        self._place.turn_to("answering")
        answer = self._safely(lambda: self.server.service.take(headers, body))
        self._send(answer or Told(500, "internal error"))

    def _bounded(self, length: str) -> Answer | None:
        if not (length.isascii() and length.isdigit()):
            return Told(411, "Content-Length is needed")
        most = self.server.limits.body_bytes
        return Told(413, f"more than {most} bytes") if int(length) > most else None

    def _safely(self, asked: Callable[[], Answer | None]) -> Answer | None:
        try:
            return asked()
        except Exception:
            log.exception("a request could not be answered")
            return Told(500, "internal error")

    def _send(self, answer: Answer) -> None:
        content = answer.words.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json" if content[:1] == b"{" else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        if answer.retry_after is not None:
            self.send_header("Retry-After", str(answer.retry_after))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def version_string(self) -> str:
        return "grpo-operator"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        log.debug("%s %s", self.address_string(), format % args)
