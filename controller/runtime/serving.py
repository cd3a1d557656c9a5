"""/healthz, /readyz and /metrics for probes and scrapers, over plain HTTP. What healthy means comes in as functions."""

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

Check = Callable[[], str | None]
REQUEST_SECONDS = 10.0
JOIN_SECONDS = 5.0
log = logging.getLogger(__name__)


class Serving:
    """Checks say in a sentence what is wrong, or None; a probe fails with 503 and their names and sentences."""

    def __init__(
        self,
        address: tuple[str, int],
        healthy: Mapping[str, Check],
        ready: Mapping[str, Check],
        metrics: Callable[[], tuple[str, bytes]],
    ) -> None:
        pages: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/healthz": lambda: _verdict(healthy),
            "/readyz": lambda: _verdict(ready),
            "/metrics": lambda: (200, *metrics()),
        }

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = REQUEST_SECONDS

            def do_GET(self) -> None:
                page = pages.get(self.path.split("?")[0])
                status, content_type, content = page() if page else (404, "text/plain", b"no such page\n")
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (as inherited)
                log.debug(format, *args)

        self._server = _Server(address, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="serving", daemon=True)

    @property
    def port(self) -> int:
        """The one that was asked for; with 0, the one that was free."""
        return self._server.server_port

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(JOIN_SECONDS)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name server for the address's name: seconds, where there is none.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a probe went away", exc_info=True)


def _verdict(checks: Mapping[str, Check]) -> tuple[int, str, bytes]:
    told = {name: check() for name, check in checks.items()}
    lines = [f"[-] {name}: {wrong}" if wrong else f"[+] {name}" for name, wrong in told.items()]
    return (503 if any(told.values()) else 200), "text/plain; charset=utf-8", ("\n".join(lines) + "\n").encode()
