"""Reports that stop restart nothing, whoever is to blame; reports whose heartbeat stands still do."""

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.controlplane.operating import Operating
from tests.controlplane.processes import Process
from tests.controlplane.world import World

ADDRESS = "10.245.0.9"
DEADLINE = 4
"""Of the trainer, in seconds: the heartbeat may stand still so long."""
SHORT_SILENCE = (
    "from controller.lifecycle import progressing; progressing.SILENCE_SECONDS = 5.0;"
    "from controller.operator.__main__ import main; main()"
)
"""The operator, that gives reports up sooner than two minutes."""


class Network:
    """The address at which pods reach the operator; while it is cut nobody has it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def heal(self) -> None:
        self._change("add")

    def cut(self, *, check: bool = True) -> None:
        self._change("del", check=check)

    def _change(self, verb: str, *, check: bool = True) -> None:
        subprocess.run(self._world.inside("ip", "address", verb, f"{ADDRESS}/32", "dev", "lo"), check=check)


@pytest.fixture
def network(world: World) -> Iterator[Network]:
    network = Network(world)
    network.heal()
    yield network
    network.cut(check=False)


@pytest.fixture
def start(operating: Operating, network: Network) -> Iterator[Callable[[], Process]]:
    """Starts an operator; it is ended with the test at the latest."""
    started: list[Process] = []

    def begin() -> Process:
        started.append(Process(operating.world, operating.namespace, ADDRESS, ("-c", SHORT_SILENCE)))
        return started[-1]

    yield begin
    for process in started:
        process.end()


def progressing(operating: Operating, name: str, status: str, reason: str) -> None:
    operating.wait(lambda: operating.condition(name, "Progressing") == (status, reason), f"{reason} of {name}")


@pytest.mark.long
def test_reports_that_stop_restart_nothing(
    operating: Operating, network: Network, start: Callable[[], Process]
) -> None:
    """The endpoint is cut off, and then the operator is down, each for twice the deadline: nothing is known, and the
    same pod runs on; reports that come again are taken.
    """
    operator = start()
    operating.apply("beats", [["beat"]], progressDeadlineSeconds=DEADLINE)
    progressing(operating, "beats", "True", "Reporting")
    (pod,) = operating.pods("beats")
    assert operating.status("beats")["progress"]["display"] == "1/2"

    network.cut()
    progressing(operating, "beats", "Unknown", "NoReports")
    time.sleep(2 * DEADLINE)
    progressing(operating, "beats", "Unknown", "NoReports")
    network.heal()
    progressing(operating, "beats", "True", "Reporting")

    operator.end()
    time.sleep(2 * DEADLINE)
    network.cut()
    start()
    progressing(operating, "beats", "Unknown", "NoReports")
    network.heal()
    progressing(operating, "beats", "True", "Reporting")
    assert [one["metadata"]["uid"] for one in operating.pods("beats")] == [pod["metadata"]["uid"]]
    assert (operating.attempts("beats"), operating.status("beats")["phase"]) == ([], "Running")


def test_a_heartbeat_that_stands_still_is_given_up(operating: Operating, start: Callable[[], Process]) -> None:
    """Reports come, and nothing moves: stalled after the deadline; after twice that the job begins anew, once, and its
    own budget is spent.
    """
    start()
    operating.apply("still", [["still"], ["beat"]], progressDeadlineSeconds=DEADLINE)
    progressing(operating, "still", "False", "Stalled")
    assert operating.attempts("still") == []
    assert "nothing was finished for 4 s" in operating.message("still", "Progressing")
    (attempt,) = operating.wait(lambda: operating.attempts("still"), "the attempt's end")
    assert (attempt["class"], attempt["reason"]) == ("Failure", "Stalled")
    assert "the heartbeat stood still for twice 4 s" in attempt["message"]
    progressing(operating, "still", "True", "Reporting")
    ledger = operating.status("still")["attempts"]
    assert (ledger["restarts"], ledger["disruptions"]) == (1, 0)
