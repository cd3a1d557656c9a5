"""Where a model's files are: a local folder as it is, or fetched once into this machine's cache from hub or bucket.

Comes in: `model_path`. Goes out: a local folder, its tokenizer, its stop ids. Refuses to know: weights, runs.
"""

import os
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from trainer import bucket
from trainer.model.config import ModelConfig, UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model")


class ModelNotReachableError(OSError):
    """The model's files cannot be had. `permanent`: asking again will not help (no such model, no right to it)."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


def at_revision(model_path: str, revision: str | None) -> str:
    """The model as it was: a hub id with the commit that was recorded; a bucket keeps no revisions."""
    return model_path if revision is None or bucket.is_uri(model_path) else f"{model_path.partition('@')[0]}@{revision}"


def resolve_model(model_path: str) -> Path:
    """A local folder with the model's files.

    An existing folder is taken as it is. Of a gs:// folder the files are fetched into one named by their generations.
    Anything else that does not look like a path is a hub id, `owner/name` or `owner/name@revision`; it comes from the
    hub's cache (HF_HOME), or is downloaded unless HF_HUB_OFFLINE is set, into a folder that ends in its commit.
    Raises ModelNotReachableError.
    """
    if bucket.is_uri(model_path):
        return _from_bucket(model_path.rstrip("/"))
    folder = Path(model_path).expanduser()
    if folder.is_dir():
        return folder
    if model_path.startswith((".", "/", "~", "\\")) or folder.exists():
        raise ModelNotReachableError(
            f"model_path: {model_path} is not a folder on this machine; give a folder that holds config.json, "
            "or a hub id such as Qwen/Qwen2.5-0.5B-Instruct",
            permanent=True,
        )
    return _from_hub(model_path)


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
    repository, _, revision = model_path.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES)))
    except (GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelNotReachableError(_explain(model_path, error), permanent=True) from None
    except OSError as error:
        raise ModelNotReachableError(_explain(model_path, error), permanent=constants.HF_HUB_OFFLINE) from None


def _explain(model_path: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    if isinstance(error, GatedRepoError):
        return f"model_path: {model_path} needs permission on the hub; accept its licence there and set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return (
            f"model_path: {model_path} names a revision that the hub does not have; use a branch, tag or commit of it"
        )
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return (
            f"model_path: {model_path} is neither a folder here nor a model on the hub ({reason}); "
            "check the spelling, or set HF_TOKEN where the model is private"
        )
    if constants.HF_HUB_OFFLINE:
        return (
            f"model_path: {model_path} is not in the hub's cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids "
            "to download it; download it first, or give a folder"
        )
    return (
        f"model_path: {model_path} is no folder here, and the hub cannot be reached ({reason}); "
        "give a folder, or check the network"
    )
