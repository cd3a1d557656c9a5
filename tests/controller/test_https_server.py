"""The server with real clients: kept connections, bad clients beside good ones, a certificate changed."""

import http.client
import json
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.https.certificates import LIFETIME, Certificate, issue, server_context
from controller.https.door import Door
from controller.https.server import Answer, Doing, Limits, Server, Told
from controller.webhook.admission import Admission

QUICK: dict[Doing, float] = {"opening": 2.0, "idle": 2.0, "reading": 2.0, "answering": 5.0}
Serve = Callable[..., Server]


class Echo:
    """Says what it was sent; an empty body is beyond it."""

    def refuses(self, method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        return None if path == "/echo" else Told(503, "not now", retry_after=7)

    def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        if not body:
            raise LookupError("nothing to say")
        return Told(200, body.decode())


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return issue(("127.0.0.1",), datetime.now(UTC))


@pytest.fixture
def serve(certificate: Certificate) -> Iterator[Serve]:
    """`serve(limits)`: a server that answers with what it was sent."""
    servers: list[Server] = []

    def serve(limits: Limits | None = None) -> Server:
        server = Server("127.0.0.1", 0, server_context(certificate), Echo(), limits)
        server.start()
        servers.append(server)
        return server

    yield serve
    for server in servers:
        server.stop()


def context_of(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=certificate.authorities.decode())


def connected(server: Server, certificate: Certificate) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(*server.address, context=context_of(certificate), timeout=60)


def asked(
    connection: http.client.HTTPSConnection, path: str = "/echo", body: bytes | None = b"hello"
) -> tuple[int, bytes]:
    connection.request("GET" if body is None else "POST", path, body)
    response = connection.getresponse()
    return response.status, response.read()


def test_a_connection_serves_many_requests(serve: Serve, certificate: Certificate) -> None:
    """The API server keeps its connection."""
    connection = connected(serve(), certificate)

    assert asked(connection) == (200, b"hello")
    held = connection.sock
    assert asked(connection, body=b"again") == (200, b"again")
    assert connection.sock is held
    assert asked(connection, "/healthz", None) == (200, b"ok")
    connection.close()


def test_what_cannot_be_answered_is_told(serve: Serve, certificate: Certificate) -> None:
    """Another path, too large a body, and a fault of ours: each its status, and the next request is served."""
    server = serve(Limits(body_bytes=10))
    for path, body, status in (
        ("/nowhere", b"", 503),
        ("/nowhere", None, 404),
        ("/echo", b"x" * 11, 413),
        ("/echo", b"", 500),
        ("/echo", b"x" * 10, 200),
    ):
        connection = connected(server, certificate)
        assert asked(connection, path, body)[0] == status
        connection.close()


def test_silent_clients_hold_up_nobody_and_are_cut(serve: Serve, certificate: Certificate) -> None:
    """Without a handshake, in the middle of a header, or of a body: beside such clients others are served at once."""
    server = serve(Limits(seconds=QUICK))
    silent: list[Any] = [socket.create_connection(server.address) for _ in range(5)]
    for sent in (b"POST /ec", b"POST /echo HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc"):
        slow = context_of(certificate).wrap_socket(
            socket.create_connection(server.address), server_hostname="127.0.0.1"
        )
        slow.sendall(sent)
        silent.append(slow)
    connection = connected(server, certificate)

    assert asked(connection) == (200, b"hello")
    assert select.select(silent[:5], [], [], 0)[0] == []
    connection.close()
    for client in silent:
        with client:
            assert is_cut(client)


def is_cut(client: socket.socket) -> bool:
    """Whether the server ends the connection, whatever it sends before."""
    client.settimeout(60)
    try:
        while client.recv(1000):
            continue
    except (ConnectionError, ssl.SSLError):
        return True
    except TimeoutError:
        return False
    return True


def test_where_all_places_are_taken_the_longest_silent_client_gives_way(serve: Serve, certificate: Certificate) -> None:
    """A client that opens every connection it can shuts out nobody."""
    server = serve(Limits(connections=4))
    crowd = [socket.create_connection(server.address) for _ in range(12)]

    connection = connected(server, certificate)
    assert asked(connection) == (200, b"hello")
    connection.close()
    for client in crowd:
        client.close()


def test_a_new_certificate_serves_the_next_connection(serve: Serve, certificate: Certificate) -> None:
    """Without a restart; a connection that is there goes on."""
    server, other = serve(), issue(("127.0.0.1",), datetime.now(UTC))
    before = connected(server, certificate)
    assert asked(before)[0] == 200

    server.use(server_context(other))

    after = connected(server, other)
    assert (asked(before)[0], asked(after)[0]) == (200, 200)
    before.close()
    after.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        asked(connected(server, certificate))


class Changing:
    """A source whose certificate can be taken away and replaced; `looks` counts how often it was asked."""

    def __init__(self) -> None:
        self.certificate: Certificate | None = None
        self.settled, self.looks = True, 0

    def current(self) -> Certificate:
        self.looks += 1
        if self.certificate is None:
            raise OSError("no such file")
        return self.certificate


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_door_opens_with_a_certificate_and_takes_the_next(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not ready while there is none; then it serves, answers reviews, and changes certificates by itself."""
    monkeypatch.setattr("controller.https.door.SOON_SECONDS", 0.05)
    source = Changing()
    door = Door(source, "127.0.0.1", 0, Admission(), look_seconds=0.05)
    door.start()
    assert not door.ready
    source.certificate = certificate
    until(lambda: door.ready)
    assert door.address is not None
    request = {"uid": "u", "operation": "CREATE", "object": {}}
    body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()
    connection = http.client.HTTPSConnection(*door.address, context=context_of(certificate), timeout=60)

    status, told = asked(connection, "/validate", body)
    assert (status, json.loads(told)["response"]["allowed"]) == (200, False)
    assert asked(connection, "/validate", b"[" * 100_000)[0] == 400
    source.certificate = other = issue(("127.0.0.1",), datetime.now(UTC), certificate.authorities)

    def shown() -> bytes:
        plain = socket.create_connection(door.address or ("", 0))
        with context_of(other).wrap_socket(plain, server_hostname="127.0.0.1") as client:
            return client.getpeercert(True) or b""

    until(lambda: shown() == ssl.PEM_cert_to_DER_cert(other.chain.decode()))
    connection.close()
    door.stop()


def test_a_certificate_that_has_ended_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Clients refuse it, so the door is not ready, and says since when; a newer one mends it."""
    source = Changing()
    source.certificate = issue(["127.0.0.1"], datetime.now(UTC) - 2 * LIFETIME)
    door = Door(source, "127.0.0.1", 0, Admission(), look_seconds=0.05)
    door.start()
    until(lambda: "and there is no newer one" in caplog.text)
    assert str(door.fault).startswith("the certificate of port 0 ended at ")
    source.certificate = issue(["127.0.0.1"], datetime.now(UTC))
    until(lambda: door.ready)
    door.stop()


def test_clients_that_could_not_be_told_are_told_soon(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the source is settled it is asked again and again; then not before its time."""
    monkeypatch.setattr("controller.https.door.SOON_SECONDS", 0.02)
    source = Changing()
    source.certificate, source.settled = certificate, False
    door = Door(source, "127.0.0.1", 0, Admission(), look_seconds=3600.0)
    door.start()
    until(lambda: source.looks >= 3)
    source.settled = True
    time.sleep(0.2)
    looks = source.looks
    time.sleep(0.2)
    assert source.looks == looks
    door.stop()
