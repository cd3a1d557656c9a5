"""Processes that cannot meet: within a bounded time each ends, and says where it waited and what to do."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from launching import free_port, resolved, sums

from trainer.contract.exits import Cause
from trainer.contract.process import ProcessConfig

IMPATIENT = """
import os, sys
from trainer.supervisor import supervise
child = (
    "import sys, trainer.distributed as distributed; distributed.CONNECT_SECONDS = 5;"
    "from trainer.worker import main; sys.exit(main(sys.argv[1:]))"
)
sys.exit(supervise([sys.executable, "-c", child, *sys.argv[1:]], os.environ, sleep=lambda _: None))
"""


@pytest.fixture
def ends(byte_model: Path, tmp_path: Path):
    """Exit code and cause of one process of two, for its index and its port; the other one never comes."""
    run = resolved(byte_model, sums(tmp_path / "sums.jsonl"), tmp_path / "out", 2, 1)
    (tmp_path / "run.json").write_text(run.to_json())

    def end(index: int, port: int) -> tuple[int, Cause]:
        identity = ProcessConfig(run, "0123abcd", index, f"127.0.0.1:{port}", 0).to_environment()
        own = {"GRPO_TERMINATION_LOG": str(tmp_path / "log"), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", IMPATIENT, "--run-config", str(tmp_path / "run.json")]
        code = subprocess.run(command, env={**os.environ, **identity, **own}, timeout=600, check=False).returncode
        return code, Cause.from_json((tmp_path / "log").read_text())

    return end


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_waits_in_vain_says_where(ends, index: int) -> None:
    """The first without the second, or the second without the first: a lost peer, with the address of the meeting."""
    port = free_port()
    code, cause = ends(index, port)
    assert (code, cause.name, cause.process) == (9, "PeerLost", index)
    assert cause.message == (
        f"JAX ended this process (meeting 1 others at 127.0.0.1:{port}): another one was lost or never came, and its "
        "log holds the cause"
    )


def test_a_port_that_is_taken_is_named(ends) -> None:
    """The first process cannot listen, and that is a failure of its own."""
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        other.bind(("::", 0))
        other.listen()
        port = other.getsockname()[1]
        code, cause = ends(0, port)
    assert (code, cause.name) == (1, "Failed")
    assert cause.message == (
        f"process 0 cannot listen at 127.0.0.1:{port} (Address already in use); end what holds the port, or wait until "
        "it is free"
    )
