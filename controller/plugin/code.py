"""User's Python as a ConfigMap: a folder comes in, an immutable object that its jobs own goes out.

It asks no cluster. What a ConfigMap cannot hold is refused, for a job would miss it only on its machines.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from controller import names
from controller.plugin.trouble import Exit, Trouble

Body = dict[str, Any]
LARGEST_BYTES = 1_000_000
"""The API server takes 1 MiB, names and metadata included."""
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
DIGITS = 16
LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Those with which Kubernetes ends the names that it makes: no word comes of them."""


def suffix() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(5))


def packed(folder: Path) -> dict[str, str]:
    """The text of each file, by name. Hidden files and what Python made are left out. Raises `Trouble`."""
    found: dict[str, str] = {}
    for path in _files(folder):
        try:
            found[path.name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = "is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read ({error.strerror})"
            raise Trouble(f"--code: {path} {why}; move it out of {folder}", Exit.USAGE) from error
    if not any(name.endswith(".py") for name in found):
        raise Trouble(f"--code: {folder} holds no Python file; name the folder with your rewards", Exit.USAGE)
    if (size := sum(len(name) + len(text.encode()) for name, text in found.items())) > LARGEST_BYTES:
        fix = "put what is large into the image or on a volume"
        raise Trouble(f"--code: {folder} has {size:,} bytes, a ConfigMap holds {LARGEST_BYTES:,}; {fix}", Exit.USAGE)
    return found


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.is_dir():
            fix = "a ConfigMap holds no folders: put the modules beside one another, or build them into spec.image"
            raise Trouble(f"--code: {path} is a folder, and {fix}", Exit.USAGE)
        if not KEY.fullmatch(path.name):
            fix = "a key of a ConfigMap has letters, digits, - _ and . alone; rename it"
            raise Trouble(f"--code: {path} cannot be packed, because {fix}", Exit.USAGE)
        yield path


def name_of(data: Mapping[str, str]) -> str:
    """The same for the same files: jobs with the same code share it."""
    text = json.dumps(dict(data), sort_keys=True)
    return f"code-{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"


def config_map(namespace: str, data: Mapping[str, str]) -> Body:
    name = name_of(data)
    metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "grpoctl"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": dict(data)}


def owners(jobs: Iterable[Body]) -> Body:
    """Laid over those that it has: the ConfigMap goes when the last of its jobs is gone."""
    references = [
        {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"],
        }
        for job in jobs
    ]
    return {"metadata": {"ownerReferences": references}}
