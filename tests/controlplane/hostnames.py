"""Names that pods know one another and the Services by, where no name server is."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Body = dict[str, Any]


class HostNames:
    """The names of running pods, in a file for each that is bound into it: no name server is here.

    A pod also knows the Services that there are when it starts; `services` gives their lines.
    """

    def __init__(self, services: Callable[[], str]) -> None:
        self._services = services
        self._lines: dict[Path, str] = {}
        self._own: dict[Path, str] = {}
        self._lock = threading.Lock()

    def add(self, path: Path, pod: Body, address: str) -> None:
        """A pod knows itself by its bare name too, and others by their headless service."""
        spec, meta = pod["spec"], pod["metadata"]
        host = spec.get("hostname", meta["name"])
        short = f"{host}.{spec['subdomain']}" if spec.get("subdomain") else host
        names = [short, f"{short}.{meta['namespace']}", f"{short}.{meta['namespace']}.svc.cluster.local"]
        services = self._services()
        with self._lock:
            self._own[path] = f"127.0.0.1 localhost\n{address} {host}\n{services}"
            self._lines[path] = f"{address} {' '.join(names)}\n"
            self._write()

    def drop(self, path: Path) -> None:
        """Its successor has the same name and another address."""
        with self._lock:
            self._lines.pop(path, None)
            self._own.pop(path, None)
            self._write()

    def _write(self) -> None:
        """In place, for a file that is replaced would stay as it was where it is mounted."""
        names = "".join(self._lines.values())
        for path, own in self._own.items():
            with path.open("r+" if path.exists() else "w") as file:
                file.write(own + names)
                file.truncate()
