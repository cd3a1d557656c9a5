"""Objects of a Cloud Storage bucket: gs:// addresses come in; bytes, files and lists of objects go out, or go there.

Credentials are found as Google's client finds them. It refuses to know what an object means to a run.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from etils import epath
from etils.epath import backend, stat_utils

from trainer.contract.exits import NotReachableError

SCHEME = "gs://"
TRY_SECONDS = 20.0
"""So long is one request tried again, with pauses between; who can wait longer asks again."""
_REQUEST_SECONDS = 60.0
_AT_ONCE = 8
_RIGHTS = "roles/storage.objectUser and roles/storage.legacyBucketReader"
"""Objects read and written; and the bucket's own settings, which Orbax reads:
https://docs.cloud.google.com/storage/docs/access-control/iam-roles"""


class BucketError(NotReachableError):
    """*value, rule, fix*; who asked puts the path of the key before it."""


@dataclass(frozen=True, slots=True)
class Found:
    """One object of a listing. `generation` is another one after every write."""

    uri: str
    size: int
    generation: int


def is_uri(text: str) -> bool:
    return text.startswith(SCHEME)


@cache
def _look_at_no_owners() -> None:
    """The path's `stat` asks for the name of a file's owner, and fails where there is none.

    The user id of a pod, or of a disk, often is not in the image's /etc/passwd. Nobody needs the names.
    """

    def look(path: str | os.PathLike[str]) -> stat_utils.StatResult:
        found = os.stat(path)  # noqa: PTH116 - what epath itself calls
        return stat_utils.StatResult(
            is_directory=stat.S_ISDIR(found.st_mode),
            length=found.st_size,
            mtime=int(found.st_mtime),
            owner=None,
            group=None,
            mode=found.st_mode,
        )

    backend.os_backend.stat = look


def path(uri: str) -> epath.Path:
    """A path as Orbax takes it, local or gs://; what lies in a bucket is asked for anew each time."""
    _look_at_no_owners()
    if is_uri(uri):
        import fsspec

        # It tells with a traceback what its caller tells in words.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # else a look by gRPC at each bucket
        fsspec.config.conf["gcs"] = {"use_listings_cache": False, "requests_timeout": _REQUEST_SECONDS}
        return epath.Path(uri)
    return epath.Path(uri).expanduser()


def absolute(path: epath.Path) -> epath.Path:
    """As Orbax wants a local path; epath would lay a bucket's address below the working folder."""
    return path if is_uri(str(path)) else path.absolute()


def read(uri: str, seconds: float | None = None) -> bytes | None:
    """The whole object, or None where there is none. Raises BucketError, as all that follow do; `seconds`: so long is
    it tried.
    """
    from google.api_core.exceptions import NotFound

    with _told(uri):
        try:
            content: bytes = _blob(uri).download_as_bytes(**_patience(seconds))
        except NotFound:
            return None
    return content


def write(uri: str, content: bytes) -> None:
    with _told(uri):
        _blob(uri).upload_from_string(content, checksum="crc32c", **_patience())


def upload(file: Path, uri: str, seconds: float | None = None) -> None:
    """`seconds`: so long is it tried."""
    with _told(uri):
        _blob(uri).upload_from_filename(str(file), checksum="crc32c", **_patience(seconds))


def download(uri: str, file: Path) -> None:
    """Into a file that appears whole or not at all; its checksum is the bucket's."""
    partial = file.with_name(f".{file.name}.partial")
    file.parent.mkdir(parents=True, exist_ok=True)
    with _told(uri):
        _blob(uri).download_to_filename(str(partial), checksum="crc32c", **_patience())
    partial.replace(file)


def fetch(uri: str, objects: Iterable[Found], folder: Path) -> None:
    """These objects below `uri` as files below `folder`, several at once; what is there already is not asked for."""

    def one(found: Found) -> None:
        file = folder / found.uri.removeprefix(uri).lstrip("/")
        if not (file.exists() and file.stat().st_size == found.size):
            download(found.uri, file)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(one, objects))


def kept(uri: str, objects: Sequence[Found]) -> Path:
    """The folder of this machine's cache with these objects below `uri`, fetched by one of its processes.

    Its name is a digest of their names and generations: what was written again has a folder of its own.
    """
    from filelock import FileLock
    from huggingface_hub import constants

    told = repr([(found.uri, found.size, found.generation) for found in objects])
    folder = Path(constants.HF_HOME) / "buckets" / hashlib.sha256(told.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        fetch(uri, objects, folder)
    return folder


def delete(uri: str) -> None:
    from google.api_core.exceptions import NotFound

    with _told(uri):
        try:
            _blob(uri).delete(**_patience())
        except NotFound:
            return


def listing(uri: str) -> list[Found]:
    """Every object whose address begins with `uri`, in the order of their names."""
    name, prefix = _parts(uri)
    with _told(uri):
        blobs = _client().list_blobs(name, prefix=prefix, **_patience())
        return [Found(f"{SCHEME}{name}/{blob.name}", blob.size, blob.generation) for blob in blobs]


def _parts(uri: str) -> tuple[str, str]:
    name, _, rest = uri.removeprefix(SCHEME).partition("/")
    return name, rest


def _blob(uri: str) -> Any:
    name, rest = _parts(uri)
    return _client().bucket(name).blob(rest)


@lru_cache(maxsize=1)
def _client() -> Any:
    from google.cloud import storage

    return storage.Client()


def _patience(seconds: float | None = None) -> dict[str, Any]:
    from google.cloud.storage.retry import DEFAULT_RETRY

    seconds = TRY_SECONDS if seconds is None else seconds
    return {"retry": DEFAULT_RETRY.with_timeout(seconds), "timeout": min(_REQUEST_SECONDS, 3 * seconds)}


@contextmanager
def blamed(key: str) -> Iterator[None]:
    """What a BucketError says, behind the path of the configuration's key whose value was asked for."""
    try:
        yield
    except BucketError as error:
        raise BucketError(f"{key}: {error}", permanent=error.permanent) from error


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """What the client or the network said, as a BucketError; a fault of this machine's disk as it is."""
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from requests import RequestException

    try:
        yield
    except exceptions.NotFound:
        text = f"{uri} names no bucket that exists; create {SCHEME}{_parts(uri)[0]}, or correct the address"
        raise BucketError(text, permanent=True) from None
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        text = f"{uri} is closed to this process ({error.code}); give its service account {_RIGHTS} on the bucket"
        raise BucketError(text, permanent=True) from error
    except DefaultCredentialsError as error:
        text = f"{uri} needs Google's credentials, and there are none here; run `gcloud auth application-default login`"
        raise BucketError(f"{text}, or use workload identity in a cluster", permanent=True) from error
    except (exceptions.GoogleAPIError, GoogleAuthError, RequestException) as error:
        text = f"{uri} did not answer ({_reason(error)}); check the network and https://status.cloud.google.com"
        raise BucketError(text, permanent=False) from error


def _reason(error: Exception) -> str:
    """Of a time-out after several tries, what was wrong with the last one: a status of HTTP, or the network's word."""
    cause = getattr(error, "cause", None) or error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP status {status}"
    text = str(cause).strip() or type(cause).__name__
    return text.rpartition(": ")[2].rstrip("')\"")  # the innermost of what caused it
