"""A bucket without a cloud: fake-gcs-server, built once into the test cache, and a gate before it that makes faults."""

import hashlib
import http.client
import json
import subprocess
import threading
import time
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from filelock import FileLock
from launching import free_port

from tests.golang import cache_folder, go

_MODULE = Path(__file__).with_name("emulator")
_PACKAGE = "github.com/fsouza/fake-gcs-server"


def server() -> Path:
    """The emulator's binary, of the version that `emulator/go.mod` names and `go.sum` pins by its hash."""
    pins = b"".join((_MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    binary = cache_folder() / f"fake-gcs-server-{hashlib.sha256(pins).hexdigest()[:12]}"
    binary.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{binary}.lock"):
        if not binary.exists():
            partial = binary.with_suffix(".partial")
            go("build", "-trimpath", "-ldflags=-s -w", "-o", str(partial), _PACKAGE, module=_MODULE)
            partial.replace(binary)
    return binary


class Emulator:
    """A server that keeps its buckets in `folder`, so that it may be stopped and started again."""

    def __init__(self, folder: Path, *buckets: str, url: str | None = None) -> None:
        self.port = free_port()
        self.url = url or f"http://127.0.0.1:{self.port}"
        self._folder = folder
        for name in buckets:
            (folder / name).mkdir(parents=True)
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """What Google's client, gcsfs and TensorStore each read to find the server."""
        return {"STORAGE_EMULATOR_HOST": self.url, "TENSORSTORE_GCS_HTTP_URL": self.url, "NO_GCE_CHECK": "true"}

    def start(self) -> None:
        command = [str(server()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)]
        command += ["-backend", "filesystem", "-filesystem-root", str(self._folder), "-external-url", self.url]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/storage/v1/b"):
                return
            time.sleep(0.1)
        raise AssertionError("the bucket emulator did not start within a minute")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def names(self, bucket: str) -> list[str]:
        """Of all objects of a bucket."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/storage/v1/b/{bucket}/o?fields=items/name") as found:
            return sorted(item["name"] for item in json.load(found).get("items", []))


CUT = -1
"""Instead of a status of HTTP: the connection ends without an answer."""


class Gate(ThreadingHTTPServer):
    """Passes requests on to the emulator, after `delay` seconds; to those whose path holds `refused` it answers
    `refusal`, a status of HTTP or `CUT`, instead.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Passage)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.behind = 0
        self.delay, self.refusal, self.refused = 0.0, 0, ""
        self.seen: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Passage(BaseHTTPRequestHandler):
    server: Gate
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        gate = self.server
        gate.seen.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(gate.delay)
        if gate.refusal and gate.refused in self.path:
            if gate.refusal == CUT:
                self.close_connection = True
                return None
            return self._answer(gate.refusal, {}, b'{"error": {"message": "refused by the test"}}')
        behind = http.client.HTTPConnection("127.0.0.1", gate.behind)
        try:
            behind.request(self.command, self.path, body, dict(self.headers))
            told = behind.getresponse()
            self._answer(told.status, dict(told.getheaders()), told.read())
        except OSError:
            self.close_connection = True
        finally:
            behind.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _pass  # noqa: N815 - names of http.server

    def log_message(self, *_: object) -> None:
        return
