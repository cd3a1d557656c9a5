"""The Hugging Face hub: what a name stands for there comes in, one commit of it and its files on this machine go out.

Files come from the hub's cache (HF_HOME); with HF_HUB_OFFLINE the hub is asked nothing. It refuses to know what a file
holds, and which other processes want it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any, Literal, cast

from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    get_session,
    set_client_factory,
    snapshot_download,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
    XetDownloadError,
)
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from trainer.contract.exits import NotReachableError

_FAULTS: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    EntryNotFoundError,
    RevisionResolutionError,
    XetDownloadError,
    *cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__),
)
"""Of the hub and of the network, whichever client the hub's library speaks through."""
_REFUSED = (401, 403, 404)
_KINDS = {"model": "model", "dataset": "data set"}


class HubError(NotReachableError):
    """*path: value, rule, fix*."""


@dataclass(frozen=True, slots=True)
class Name:
    """A repository of the hub. `source` is how the configuration writes it, at the key `path`."""

    path: str
    source: str
    kind: Literal["model", "dataset"]
    repository: str
    revision: str | None = None

    @property
    def told(self) -> str:
        return f"{self.path}: {self.source}"


@dataclass(frozen=True, slots=True)
class Pin:
    """One commit of a repository and the files that are wanted of it, which never change."""

    name: Name
    commit: str
    files: tuple[str, ...]

    @classmethod
    def of(cls, name: Name, record: Mapping[str, Any]) -> "Pin":
        """What `record` was made of. Raises KeyError."""
        return cls(name, record["commit"], tuple(record["files"]))

    @property
    def folder(self) -> str:
        """Where its files lie below a folder of many."""
        return f"{self.name.kind}s/{self.name.repository}/{self.commit}"

    @property
    def record(self) -> dict[str, Any]:
        """As plain data, for a run to find it again."""
        return {"source": self.name.source, "commit": self.commit, "files": list(self.files)}


def is_offline() -> bool:
    return constants.HF_HUB_OFFLINE


def pin(name: Name, choose: Callable[[Sequence[str]], Sequence[str]]) -> Pin:
    """What a name stands for now, and those of its files that `choose` picks. Raises HubError.

    Where the hub does not answer, a branch is what it was when the cache last heard of it.
    """
    with _told(name):
        found = HfApi().resolve_revision(
            name.repository, repo_type=name.kind, revision=name.revision, local_files_only=is_offline()
        )
        files = _listed(name, found.resolved)
    return Pin(name, found.resolved, tuple(choose(files)))


def cached(pin: Pin) -> Path | None:
    """The folder of this machine's cache with all files of `pin`; None where one is missing. Nothing is asked."""
    try:
        folder = Path(snapshot_download(**_wanted(pin), local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _holds(folder, pin) else None


def download(pin: Pin, beat: Callable[[], None] = lambda: None) -> Path:
    """Fetch what is missing into this machine's cache; `beat` is called as bytes arrive. Raises HubError."""
    with _told(pin.name):
        try:
            folder = Path(snapshot_download(**_wanted(pin), tqdm_class=_beating(beat)))
        except RevisionNotFoundError:
            gone = f"{pin.name.told} is no longer on the hub as it was (commit {pin.commit}); bring that back"
            raise HubError(f"{gone}, or use --new-run to start afresh with what is there", permanent=True) from None
        if not _holds(folder, pin):  # what the library gives where the hub does not answer
            raise LocalEntryNotFoundError("it does not answer, and the cache holds a part only")
    return folder


def _wanted(pin: Pin) -> dict[str, Any]:
    name = pin.name
    patterns = [escape(file) for file in pin.files]
    return {"repo_id": name.repository, "repo_type": name.kind, "revision": pin.commit, "allow_patterns": patterns}


def _holds(folder: Path, pin: Pin) -> bool:
    return all((folder / file).is_file() for file in pin.files)


def _listed(name: Name, commit: str) -> list[str]:
    """All files of a commit, from the cache where it knows them; of a commit offline, perhaps those in the cache."""
    try:
        return [file.path for file in get_cached_repo_tree(name.repository, repo_type=name.kind, revision=commit)]
    except CachedRepoTreeNotFoundError:
        pass
    if not is_offline():
        return HfApi().list_repo_files(name.repository, repo_type=name.kind, revision=commit)
    folder = Path(snapshot_download(name.repository, repo_type=name.kind, revision=commit, local_files_only=True))
    return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]


def _beating(beat: Callable[[], None]) -> type[tqdm]:
    """A progress bar that shows nothing: other lines say what a run does."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            beat()

    return Bar


@lru_cache(maxsize=1)
def _bound_requests() -> None:
    """Give every request of the library an end: some would wait for ever for a hub that hangs."""
    found = get_session()
    client, hooks = type(found), found.event_hooks["request"]
    set_client_factory(
        lambda: client(
            event_hooks={"request": [*hooks, _bounded]}, follow_redirects=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    )


def _bounded(request: Any) -> None:
    limits = request.extensions["timeout"].items()
    bounded = {limit: constants.HF_HUB_ETAG_TIMEOUT if seconds is None else seconds for limit, seconds in limits}
    request.extensions = {**request.extensions, "timeout": bounded}


@contextmanager
def _told(name: Name) -> Iterator[None]:
    """What the hub or the network said, as a HubError; anything else as it is, since it is a fault of ours."""
    _bound_requests()
    try:
        yield
    except HubError:
        raise
    except _FAULTS as error:
        raise _explained(name, error) from error


def _explained(name: Name, error: Exception) -> HubError:
    permanent, cache = True, constants.HF_HUB_CACHE
    if isinstance(error, OSError) and error.errno is not None:
        told = f"cannot be written to the hub's cache {cache} ({error.strerror}); free some space, or set HF_HOME to "
        told += "another folder"
    elif isinstance(error, GatedRepoError):
        told = "needs permission on the hub; accept its licence there and set HF_TOKEN"
    elif isinstance(error, RevisionNotFoundError):
        told = "names a revision that the hub does not have; use a branch, tag or commit of it"
    elif isinstance(error, (HFValidationError, RepositoryNotFoundError)) or _status(error) in _REFUSED:
        told = f"is neither here nor a {_KINDS[name.kind]} on the hub ({_reason(error)}); check the spelling, or set "
        told += "HF_TOKEN where it is private"
    elif is_offline():
        told = f"is not in the hub's cache {cache}, and HF_HUB_OFFLINE forbids to download it; download it first, or "
        told += "give a path"
    else:
        told = f"is not here, and the hub cannot be reached ({_reason(error)}); check the network, or give a path"
        permanent = False
    return HubError(f"{name.told} {told}", permanent=permanent)


def _reason(error: Exception) -> str:
    """Of a name that stands for nothing here, why the hub could not be asked."""
    cause = error.__cause__ if isinstance(error, RevisionResolutionError) else None
    text = str(cause or error).strip()
    return text.splitlines()[0] if text else type(cause or error).__name__


def _status(error: BaseException | None) -> int | None:
    """Of HTTP, in an error or in what caused it."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return None if error is None else error.response.status_code
