"""The hub, asked by one process: commits, a cache that is whole or not used, no request offline, and faults."""

from pathlib import Path

import pytest
from hubs import Hub
from huggingface_hub import constants

from trainer import hub as client
from trainer.contract.exits import ExitCode, RunError
from trainer.inputs import patiently
from trainer.model.source import load_tokenizer, pin, resolve_model


@pytest.fixture
def model(hub: Hub, byte_model: Path) -> str:
    """The commit of a model on the hub, with files that no model needs."""
    files = {path.name: path for path in byte_model.iterdir()}
    others = {"README.md": byte_model / "config.json", "onnx/config.json": byte_model / "config.json"}
    return hub.push("models", "own/model", files | others)


def test_a_name_is_the_commit_that_it_was_when_it_was_asked(hub: Hub, model: str, byte_model: Path) -> None:
    """The files that a model needs are fetched once; a branch that moves on leaves the pinned commit as it is."""
    beats: list[int] = []
    found = pin("own/model")
    folder = client.download(found, lambda: beats.append(1))
    assert (found.commit, folder) == (model, client.cached(found))
    assert (folder / "model.safetensors").read_bytes() == (byte_model / "model.safetensors").read_bytes()
    names = sorted(path.name for path in byte_model.iterdir())
    assert hub.fetched == [f"models/own/model {model} {name}" for name in names]
    assert len(beats) >= len(names)

    later = hub.push("models", "own/model", {"config.json": byte_model / "generation_config.json"})
    asked = len(hub.asked)
    again = pin("own/model", model)
    assert (again.commit, again.files) == (found.commit, found.files)
    assert resolve_model(f"own/model@{model}") == folder
    assert hub.asked[asked:] == []
    assert pin("own/model").commit == later


def test_a_cache_that_lacks_a_file_is_not_used(hub: Hub, model: str) -> None:
    """An interrupted download is no model; what is missing is fetched, and no more."""
    found = pin("own/model")
    folder = client.download(found)
    (folder / "model.safetensors").resolve().unlink()
    (folder / "model.safetensors").unlink()
    assert client.cached(found) is None
    hub.asked.clear()
    assert client.download(found) == folder
    assert hub.fetched == [f"models/own/model {model} model.safetensors"]


def test_offline_nothing_is_asked(hub: Hub, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch, the files and the tokenizer come from the cache; what it lacks is told with key, rule and fix."""
    folder = resolve_model("own/model")
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_model("own/model") == folder
    assert load_tokenizer(folder)("1 + 1")["input_ids"]
    with pytest.raises(RunError) as lacking:
        patiently(lambda: pin("own/other"))
    assert lacking.value.message == (
        f"model_path: own/other is not in the hub's cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to "
        "download it; download it first, or give a path"
    )
    assert hub.asked == []


@pytest.mark.parametrize(("fault", "value"), [("refusal", 503), ("hang_seconds", 1.0)])
def test_a_hub_that_does_not_answer_is_asked_again(
    hub: Hub, model: str, monkeypatch: pytest.MonkeyPatch, fault: str, value: float
) -> None:
    """A hub that is busy, or says nothing, is waited for; after a pause the same question is answered."""
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    setattr(hub, fault, value)
    pauses: list[float] = []

    def recover(seconds: float) -> None:
        pauses.append(seconds)
        setattr(hub, fault, 0)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 10)

    assert patiently(lambda: pin("own/model"), sleep=recover).commit == model
    assert pauses == [5.0]


@pytest.mark.parametrize(
    ("model_path", "status", "text"),
    [
        ("own/nothing", 0, "model_path: own/nothing is neither here nor a model on the hub (404 Client Error."),
        ("own/model@v9", 0, "model_path: own/model@v9 names a revision that the hub does not have; use a branch, tag"),
        (
            "own/model",
            401,
            "model_path: own/model is neither here nor a model on the hub (Client error '401 Unau",
        ),
        ("own/model", 403, "model_path: own/model is neither here nor a model on the hub (403 Forbidden"),
    ],
)
def test_what_the_hub_refuses_is_told_at_once(hub: Hub, model: str, model_path: str, status: int, text: str) -> None:
    """Exit code 5 without a second request: asking again would not help."""
    hub.refusal = status
    with pytest.raises(RunError) as refused:
        patiently(lambda: pin(model_path), sleep=lambda _: pytest.fail("asked again"))
    assert refused.value.code is ExitCode.INPUT_NOT_REACHABLE
    assert refused.value.message.startswith(text)
    assert len(hub.asked) == 1


def test_a_cache_that_cannot_be_written_is_told(hub: Hub, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the network: the folder and the reason are named, and asking again would not help."""
    Path(constants.HF_HUB_CACHE).write_text("a file")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{constants.HF_HUB_CACHE}/below")
    with pytest.raises(client.HubError) as told:
        client.download(pin("own/model"))
    assert str(told.value) == (
        f"model_path: own/model cannot be written to the hub's cache {constants.HF_HUB_CACHE} (Not a directory); "
        "free some space, or set HF_HOME to another folder"
    )
    assert told.value.permanent
