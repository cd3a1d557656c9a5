"""Model and data in a bucket: fetched into this machine's cache, by what was written and not by its name alone."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from launching import sums

from trainer import bucket as objects
from trainer.contract.exits import ExitCode, RunError
from trainer.data.rows import DataError, read_rows
from trainer.model.source import ModelNotReachableError, at_revision, load_tokenizer, resolve_model
from trainer.preflight import _refuse_changed


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))


def test_a_model_is_fetched_once_and_anew_when_it_was_written_again(bucket: str, byte_model: Path) -> None:
    """The files of the folder, and no others; a change in the bucket is another folder, and no run goes on with it."""
    for file in byte_model.iterdir():
        objects.upload(file, f"{bucket}/model/{file.name}")
    for other in ("optimizer.pt", "deeper/config.json"):
        objects.write(f"{bucket}/model/{other}", b"{}")
    folder = resolve_model(f"{bucket}/model")
    assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in byte_model.iterdir())
    assert (folder / "model.safetensors").read_bytes() == (byte_model / "model.safetensors").read_bytes()
    assert len(load_tokenizer(folder)) == len(load_tokenizer(byte_model))
    (folder / "config.json").unlink()
    before = (folder / "model.safetensors").stat().st_ino
    assert resolve_model(f"{bucket}/model/") == folder
    assert (folder / "model.safetensors").stat().st_ino == before  # only what was missing is fetched again

    objects.upload(byte_model / "config.json", f"{bucket}/model/config.json")
    again = resolve_model(at_revision(f"{bucket}/model", folder.name))
    assert again != folder
    with pytest.raises(RunError, match="is not what it was when this run began") as caught:
        _refuse_changed(f"{bucket}/model", again, folder.name)
    assert caught.value.code is ExitCode.INPUT_NOT_REACHABLE


def test_a_folder_without_a_model_is_told(bucket: str) -> None:
    """An empty place in a bucket, and a bucket that does not exist, will not be there later."""
    with pytest.raises(ModelNotReachableError, match=r"^model_path: gs://.*/none holds no model; give") as none:
        resolve_model(f"{bucket}/none")
    with pytest.raises(ModelNotReachableError, match=r"^model_path: gs://nowhere/m/ names no bucket") as nowhere:
        resolve_model("gs://nowhere/m")
    assert none.value.permanent
    assert nowhere.value.permanent


def test_rows_come_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    """An object, or the objects of one folder that fit a pattern, in order of their names; errors name the address."""
    for name in ("b", "a"):
        objects.upload(sums(tmp_path / name, 2), f"{bucket}/data/{name}-part.jsonl")
    objects.write(f"{bucket}/data/more/c-part.jsonl", b"not JSON")
    objects.write(f"{bucket}/data/bad.jsonl", b'{"question": "?"}\n[]\n')

    rows = read_rows("data.train", f"{bucket}/data/*-part.jsonl", "train")
    assert [row.place for row in rows] == [f"{bucket}/data/{n}-part.jsonl line {k}" for n in "ab" for k in (1, 2)]
    assert len(read_rows("data.train", f"{bucket}/data/b-part.jsonl", "train")) == 2
    with pytest.raises(DataError, match=r"^data.eval: gs://.*/data/bad.jsonl line 2 is a list, and must be an object"):
        read_rows("data.eval", f"{bucket}/data/bad.jsonl", "test")
    with pytest.raises(DataError, match=r"^data.train: no object of the bucket is called gs://.*/none.jsonl;") as at:
        read_rows("data.train", f"{bucket}/data/none.jsonl", "train")
    assert at.value.permanent
