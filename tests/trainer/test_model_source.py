"""Finding a model's folder and its tokenizer."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from tokenizers import Tokenizer

from trainer.model.config import UnsupportedModelError, read_model_config
from trainer.model.source import ModelNotReachableError, check_tokenizer, load_tokenizer, resolve_model, stop_ids

TEXT = "w5 w77 unknown <bos> w500\n\n w6"


def test_a_folder_is_taken_as_it_is(oracles, monkeypatch):
    """An existing folder needs no hub, relative or not."""
    assert resolve_model(str(oracles / "qwen2-tied")) == oracles / "qwen2-tied"
    monkeypatch.chdir(oracles)
    assert resolve_model("qwen2-tied") == Path("qwen2-tied")


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    """A path without a folder is refused with what a model path may be, and asking again will not help."""
    with pytest.raises(
        ModelNotReachableError, match=r"nowhere is not a folder on this machine; .* or a hub id"
    ) as caught:
        resolve_model(str(tmp_path / "nowhere"))
    assert caught.value.permanent


def test_a_hub_id_comes_from_the_cache_when_offline(oracles, tmp_path, monkeypatch):
    """Offline, a hub id with or without a revision is the cached snapshot of its commit."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--owner--name"
    shutil.copytree(oracles / "qwen2-tied", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_model("owner/name") == repository / "snapshots" / commit
    assert resolve_model(f"owner/name@{commit}") == repository / "snapshots" / commit
    with pytest.raises(
        ModelNotReachableError, match=r"owner/other is not in the hub's cache .* HF_HUB_OFFLINE"
    ) as caught:
        resolve_model("owner/other")
    assert caught.value.permanent


def test_a_name_that_is_no_hub_id_is_refused():
    """What is neither a folder nor of the form owner/name is refused at once."""
    with pytest.raises(ModelNotReachableError, match="is neither here nor a model on the hub") as caught:
        resolve_model("no/such/model")
    assert caught.value.permanent


def test_the_tokenizer_makes_the_ids_of_its_own_file(oracles):
    """A folder's tokenizer.json is used as saved, even where transformers' class for the model type would differ."""
    folder = oracles / "qwen2-tied"
    want = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
    tokenizer = load_tokenizer(folder)
    assert tokenizer(TEXT)["input_ids"] == want
    assert len(set(want)) > 4
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 0)


def test_a_folder_without_a_tokenizer_is_refused(oracles, tmp_path):
    """A folder without a tokenizer, or with a broken one, is refused with the file."""
    with pytest.raises(UnsupportedModelError, match=r"has no tokenizer; save tokenizer\.json"):
        load_tokenizer(oracles / "qwen3-tied")
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json cannot be loaded as a tokenizer \(.+\)"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(oracles):
    """A tokenizer whose ids have no embedding is refused with both numbers; one that fits is not."""
    folder = oracles / "qwen2-tied"
    tokenizer, config = load_tokenizer(folder), read_model_config(folder)
    check_tokenizer(tokenizer, config, folder)
    small = dataclasses.replace(config, vocab=500)
    with pytest.raises(UnsupportedModelError, match=r"ids up to 511, but the model has embeddings for 500"):
        check_tokenizer(tokenizer, small, folder)


def test_every_stop_id_counts(oracles):
    """A completion ends at any id that the checkpoint names, and at the tokenizer's own end."""
    folder = oracles / "qwen2-tied"
    config = dataclasses.replace(read_model_config(folder), eos_ids=(9, 7))
    assert stop_ids(load_tokenizer(folder), config) == (1, 7, 9)
