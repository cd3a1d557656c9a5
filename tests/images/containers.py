"""One container of an image, run by runc as a kubelet would have it: a user by number, no capabilities, a root to read.

In: an image's files, and what the container has in its pod. Out: the process, its exit code, and a way to signal
process 1. Not done: limits, seccomp, a network of its own.
"""

import json
import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMESPACES = ("pid", "mount", "ipc", "uts")
MASKED = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]


@dataclass(frozen=True, slots=True)
class Container:
    """`writable` and `read_only` are folders of this machine by their place in the container."""

    command: Sequence[str]
    environment: Mapping[str, str]
    user: int = 65532
    working_folder: str = "/workspace"
    writable: Mapping[str, Path] = field(default_factory=dict)
    read_only: Mapping[str, Path] = field(default_factory=dict)

    def specification(self, root: Path) -> dict[str, Any]:
        """The runtime's `config.json` (https://github.com/opencontainers/runtime-spec)."""
        none: dict[str, list[str]] = {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted")}
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(root), "readonly": True},
            "hostname": "container",
            "process": {
                "user": {"uid": self.user, "gid": self.user},
                "args": list(self.command),
                "env": [f"{name}={value}" for name, value in self.environment.items()],
                "cwd": self.working_folder,
                "capabilities": none,
                "noNewPrivileges": True,
            },
            "mounts": [*_system_mounts(), *self._mounts()],
            "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES], "maskedPaths": MASKED},
        }

    def _mounts(self) -> list[dict[str, Any]]:
        folders = [(place, path, "rw") for place, path in self.writable.items()]
        folders += [(place, path, "ro") for place, path in self.read_only.items()]
        return [
            {"destination": place, "type": "bind", "source": str(path), "options": ["rbind", mode, "nosuid", "nodev"]}
            for place, path, mode in folders
        ]


class Running:
    """A started container: its output is in `log`."""

    def __init__(self, container: Container, root: Path, folder: Path, prefix: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(container.specification(root)))
        self._runtime = ["runc", f"--root={folder / 'state'}"]
        self._name = f"grpo-{uuid.uuid4().hex[:12]}"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*prefix, *self._runtime, "run", f"--bundle={folder}", self._name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def signal(self, name: str) -> None:
        """To process 1 of the container, as a kubelet's runtime does."""
        subprocess.run([*self._runtime, "kill", self._name, name], check=True)

    def wait(self, seconds: float) -> int:
        """Its exit code; what still runs then is killed."""
        try:
            return self._process.wait(seconds)
        finally:
            self.end()

    def end(self) -> None:
        subprocess.run([*self._runtime, "delete", "--force", self._name], check=False, capture_output=True)
        self._process.kill()
        self._process.wait()


def owned(folder: Path, user: int = 65532) -> Path:
    """A new folder that the container's user may write to, as a volume with its `fsGroup` is."""
    folder.mkdir(parents=True)
    os.chown(folder, user, user)
    return folder


def _system_mounts() -> list[dict[str, Any]]:
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "noexec", "nodev"]},
        {"destination": "/etc/resolv.conf", "type": "bind", "source": "/etc/resolv.conf", "options": ["bind", "ro"]},
    ]
