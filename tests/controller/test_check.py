"""What `helm test` tells of a webhook that did not judge, by what its own pod sees of it."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from controller.https.certificates import LIFETIME, issue, server_context
from controller.https.server import Server
from controller.operator.check import BrokenError, told, why_unjudged
from controller.webhook.admission import Admission


@pytest.fixture
def ports() -> Iterator[dict[str, int]]:
    """Of a webhook whose certificate has ended, and of one that is well."""
    now = datetime.now(UTC)
    issued = {"ended": issue(["127.0.0.1"], now - 2 * LIFETIME), "well": issue(["127.0.0.1"], now)}
    servers = {name: Server("127.0.0.1", 0, server_context(one), Admission()) for name, one in issued.items()}
    for server in servers.values():
        server.start()
    yield {name: server.address[1] for name, server in servers.items()}
    for server in servers.values():
        server.stop()


def test_whose_fault_it_is_is_told(ports: dict[str, int]) -> None:
    """Nobody answers, the certificate has ended, or pods reach the webhook and the API server does not."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    assert "does a NetworkPolicy or a mesh stand before them?" in why_unjudged("127.0.0.1", nobody)
    assert "its certificate ended at" in why_unjudged("127.0.0.1", ports["ended"])
    assert "let the control plane through to the webhook's port" in why_unjudged("127.0.0.1", ports["well"])


def test_each_part_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """One that does not work keeps no other from being looked at."""

    def broken() -> str:
        raise BrokenError("it is not there; install it")

    assert list(told([("one", broken), ("two", lambda: "is there")])) == [False, True]
    assert capsys.readouterr().out == "BROKEN  one: it is not there; install it\nok      two: is there\n"
