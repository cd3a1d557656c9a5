"""Events on the real API server: what `kubectl` shows of them, and what repetitions and refusals come to."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from controller.runtime.client import Api
from controller.runtime.events import EVENTS, EventRecorder
from tests.controlplane.following import CONFIG_MAPS, config_map
from tests.controlplane.looking import until
from tests.controlplane.world import World


@pytest.fixture
def outcomes() -> Counter[str]:
    return Counter()


@pytest.fixture
def recorder(api: Api, outcomes: Counter[str]) -> Iterator[EventRecorder]:
    recorder = EventRecorder(api, "tests.example/controller", "one", observe=lambda outcome: outcomes.update([outcome]))
    recorder.start()
    yield recorder
    recorder.stop()


def events(api: Api, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.list(EVENTS, namespace)["items"]
    return found


def test_kubectl_shows_an_event(world: World, api: Api, namespace: str, recorder: EventRecorder) -> None:
    """Under the object that it regards, with reason, note and who reports; a note that is too long is cut."""
    made = api.create(CONFIG_MAPS, config_map("a"), namespace)
    recorder.event(made, "Normal", "Started", "it has begun", "Start")
    recorder.event(made, "Warning", "Wordy", "ä" * 2000)
    until(lambda: len(events(api, namespace)) == 2, "two events")
    described = world.kubectl("-n", namespace, "describe", "configmap", "a").stdout
    assert "Started" in described
    assert "it has begun" in described
    assert "tests.example/controller" in described
    listed = json.loads(world.kubectl("-n", namespace, "get", "events", "-o", "json").stdout)["items"]
    assert {(one["type"], one["reason"]) for one in listed} == {("Normal", "Started"), ("Warning", "Wordy")}
    (wordy,) = [one["message"] for one in listed if one["reason"] == "Wordy"]
    assert len(wordy.encode()) <= 1024
    assert wordy.endswith("ä…")


def test_a_repetition_is_one_event_with_a_series(
    api: Api, namespace: str, recorder: EventRecorder, outcomes: Counter[str]
) -> None:
    """The second time makes it a series; a hundred more cost no call; another note is another event."""
    made = api.create(CONFIG_MAPS, config_map("a"), namespace)
    recorder.event(made, "Warning", "Again", "the same")
    recorder.event(made, "Warning", "Again", "the same")
    until(lambda: outcomes["sent"] == 2, "event and series")
    for _ in range(100):
        recorder.event(made, "Warning", "Again", "the same")
    recorder.event(made, "Warning", "Again", "another")
    until(lambda: outcomes["sent"] == 3, "the other note")
    found = {one["note"]: one.get("series", {}).get("count") for one in events(api, namespace)}
    assert found == {"the same": 2, "another": None}
    assert outcomes == {"sent": 3}


def test_a_series_whose_event_has_expired_is_told_anew(
    api: Api, namespace: str, recorder: EventRecorder, outcomes: Counter[str]
) -> None:
    """The server keeps events for an hour: what goes on after that has an event again, with its whole count."""
    made = api.create(CONFIG_MAPS, config_map("a"), namespace)
    recorder.event(made, "Normal", "Again", "the same")
    until(lambda: outcomes["sent"] == 1, "the event")
    (first,) = events(api, namespace)
    api.delete(EVENTS, first["metadata"]["name"], namespace)
    recorder.event(made, "Normal", "Again", "the same")
    until(lambda: outcomes["sent"] == 2, "it again")
    (second,) = events(api, namespace)
    assert second["series"]["count"] == 2


def test_what_cannot_be_sent_is_dropped_and_counted(
    api: Api, recorder: EventRecorder, namespace: str, outcomes: Counter[str]
) -> None:
    """A namespace that is not there, and an object that has spent its budget: the next object's events still come."""
    made = api.create(CONFIG_MAPS, config_map("a"), namespace)
    nowhere = {**made, "metadata": {**made["metadata"], "namespace": "not-there"}}
    recorder.event(nowhere, "Normal", "Lost", "nobody hears it")
    other = api.create(CONFIG_MAPS, config_map("b"), namespace)
    for number in range(40):
        recorder.event(other, "Normal", "Chatty", f"number {number}")
    third = api.create(CONFIG_MAPS, config_map("c"), namespace)
    recorder.event(third, "Normal", "Heard", "this one counts")
    until(lambda: sum(outcomes.values()) == 42, "all of them")
    assert outcomes == {"sent": 26, "dropped": 16}
    assert "Heard" in {one["reason"] for one in events(api, namespace)}


def test_a_stop_sends_what_waits(api: Api, namespace: str) -> None:
    """Events of the last moment are there after `stop`."""
    made = api.create(CONFIG_MAPS, config_map("a"), namespace)
    recorder = EventRecorder(api, "tests.example/controller")
    for number in range(10):
        recorder.event(made, "Normal", "Last", f"number {number}")
    recorder.start()
    recorder.stop()
    assert len(events(api, namespace)) == 10
