"""Where a model's files are: a local folder as it is, or fetched once into this machine's cache from hub or bucket.

Comes in: `model_path`. Goes out: a local folder, its tokenizer, its stop ids. Refuses to know: weights, runs.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainer import bucket, hub
from trainer.contract.exits import NotReachableError
from trainer.model.config import ModelConfig, UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
CONFIG = "config.json"
VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model")


class ModelNotReachableError(NotReachableError):
    """The model's files cannot be had; permanently so where there is no such model, or no right to it."""


def at_revision(model_path: str, revision: str | None) -> str:
    """The model as it was: a hub id with the commit that was recorded; a bucket keeps no revisions."""
    return model_path if revision is None or bucket.is_uri(model_path) else f"{model_path.partition('@')[0]}@{revision}"


def is_on_hub(model_path: str) -> bool:
    """Whether this is a hub id, and no bucket, no folder here and nothing that looks like one."""
    path = Path(model_path).expanduser()
    return not (bucket.is_uri(model_path) or model_path.startswith((".", "/", "~", "\\")) or path.exists())


def name_of(model_path: str) -> hub.Name:
    """The repository of `model_path`, for which `is_on_hub` holds."""
    repository, _, revision = model_path.partition("@")
    return hub.Name("model_path", model_path, "model", repository, revision or None)


def pin(model_path: str, revision: str | None = None) -> hub.Pin:
    """The files of a model on the hub at `revision`, else at that of `model_path`. Raises HubError."""
    name = name_of(model_path)
    return hub.pin(replace(name, revision=revision or name.revision), partial(_chosen, name))


def resolve_model(model_path: str) -> Path:
    """A local folder with the model's files.

    An existing folder is taken as it is. Of a gs:// folder the files are fetched into one named by their generations.
    Anything else that does not look like a path is a hub id, `owner/name` or `owner/name@revision`; it comes from the
    hub's cache (HF_HOME), or is downloaded unless HF_HUB_OFFLINE is set, into a folder that ends in its commit.
    Raises ModelNotReachableError.
    """
    if bucket.is_uri(model_path):
        return _from_bucket(model_path.rstrip("/"))
    if is_on_hub(model_path):
        return _from_hub(model_path)
    folder = Path(model_path).expanduser()
    if not folder.is_dir():
        raise ModelNotReachableError(
            f"model_path: {model_path} is not a folder on this machine; give a folder that holds config.json, "
            "or a hub id such as Qwen/Qwen2.5-0.5B-Instruct",
            permanent=True,
        )
    return folder


def load_tokenizer(folder: Path | str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a local folder; raises UnsupportedModelError where it has none.

    A folder's tokenizer.json is used as it was saved: AutoTokenizer of transformers 5 goes by config.json's model_type
    instead, and for `qwen2` replaces a checkpoint's own pre-tokenizer by Qwen's without a word.
    """
    # transformers warns on import that there is no PyTorch; there never is one here.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    present = [name for name in VOCABULARIES if (Path(folder) / name).exists()]
    if not present:  # AutoTokenizer would make an empty one
        raise UnsupportedModelError(f"{folder}: has no tokenizer; save tokenizer.json beside the weights")
    try:
        return (PreTrainedTokenizerFast if VOCABULARIES[0] in present else AutoTokenizer).from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises bare Exception
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedModelError(
            f"{folder}: {present[0]} cannot be loaded as a tokenizer ({reason}); save the tokenizer again"
        ) from None


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase", config: ModelConfig, folder: Path | str) -> None:
    """Raise UnsupportedModelError where the tokenizer makes ids that the model has no embedding for."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.vocab:
        raise UnsupportedModelError(
            f"{folder}: the tokenizer makes ids up to {largest}, but the model has embeddings for {config.vocab} "
            f"(ids up to {config.vocab - 1}); use the tokenizer that the model was trained with"
        )


def stop_ids(tokenizer: "PreTrainedTokenizerBase", config: ModelConfig) -> tuple[int, ...]:
    """Every id that ends a completion: those of the checkpoint's generation_config.json, and the tokenizer's own."""
    own = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
    return tuple(sorted({*config.eos_ids, *own}))


def _from_bucket(uri: str) -> Path:
    try:
        found = [one for one in bucket.listing(f"{uri}/") if _is_wanted(one.uri.removeprefix(f"{uri}/"))]
        if not found:
            raise ModelNotReachableError(
                f"model_path: {uri} holds no model; give the gs:// folder that holds config.json", permanent=True
            )
        return bucket.kept(uri, found)
    except bucket.BucketError as error:
        raise ModelNotReachableError(f"model_path: {error}", permanent=error.permanent) from error


def _is_wanted(name: str) -> bool:
    return "/" not in name and any(fnmatch(name, pattern) for pattern in FILES)


def _from_hub(model_path: str) -> Path:
    try:
        found = pin(model_path)
        return hub.cached(found) or hub.download(found)
    except hub.HubError as error:
        raise ModelNotReachableError(str(error), permanent=error.permanent) from error


def _chosen(name: hub.Name, files: Sequence[str]) -> list[str]:
    found = [file for file in files if _is_wanted(file)]
    if CONFIG not in found:
        raise hub.HubError(
            f"{name.told} on the hub has no {CONFIG}; name a model that transformers loads", permanent=True
        )
    return found
