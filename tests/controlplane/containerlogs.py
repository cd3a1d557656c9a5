"""The kubelet's door for logs, as the API server knocks at it: `kubectl logs` ends here.

In: what a container prints, line by line. Out: the same over HTTPS, to callers with a certificate of the cluster's
authority. It knows the options `follow`, `timestamps`, `sinceTime` and `tailLines`.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, urlsplit

PORT = 10250
LOOK_SECONDS = 0.1


class ContainerLog:
    """What a container printed since its last start, in `folder`: as it is, and with the time before each line."""

    def __init__(self, folder: Path) -> None:
        self._plain, self._stamped = folder / "log", folder / "log.stamped"
        self._ended = threading.Event()
        for path in (self._plain, self._stamped):
            path.write_bytes(b"")

    def keep(self, stream: IO[bytes]) -> threading.Thread:
        """Write down what comes, until nothing can come any more."""
        thread = threading.Thread(target=self._keep, args=(stream,), daemon=True)
        thread.start()
        return thread

    def _keep(self, stream: IO[bytes]) -> None:
        with self._plain.open("ab", 0) as plain, self._stamped.open("ab", 0) as stamped, stream:
            for line in stream:
                stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
                plain.write(line)
                stamped.write(f"{stamp} ".encode() + line.removesuffix(b"\n") + b"\n")
        self._ended.set()

    def lines(self, *, follow: bool) -> Iterator[bytes]:
        """Stamped lines: those that are there, and with `follow` those that come, until the container has ended."""
        with self._stamped.open("rb") as file:
            while True:
                ended = self._ended.is_set()
                yield from file
                if ended or not follow:
                    return
                time.sleep(LOOK_SECONDS)


def serve(address: str, certificates: Path, authority: Path, find: Callable[[str, str], ContainerLog | None]) -> None:
    """`find(namespace, pod)` is the log of a pod's container."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
    context.load_cert_chain(certificates / "tls.crt", certificates / "tls.key")
    context.verify_mode = ssl.CERT_REQUIRED

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            place, *names = url.path.strip("/").split("/")
            log = find(names[0], names[1]) if place == "containerLogs" and len(names) == 3 else None
            if log is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            with suppress(OSError):
                for line in _chosen(log, {key: values[0] for key, values in parse_qs(url.query).items()}):
                    self.wfile.write(line)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((address, PORT), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _chosen(log: ContainerLog, query: dict[str, str]) -> Iterator[bytes]:
    since, skipped = datetime.fromisoformat(query.get("sinceTime", "2000-01-01T00:00:00Z")), 0
    if "tailLines" in query:
        skipped = max(0, sum(1 for _ in log.lines(follow=False)) - int(query["tailLines"]))
    for number, line in enumerate(log.lines(follow=query.get("follow") == "true")):
        stamp, _, text = line.partition(b" ")
        if number >= skipped and datetime.fromisoformat(stamp.decode()) >= since:
            yield line if query.get("timestamps") == "true" else text
