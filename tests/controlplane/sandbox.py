"""Process 1 of a pod without a container runtime: makes its namespaces look like the container's, and becomes it.

`unshare … python -m tests.controlplane.sandbox SPEC.json`: the file tells address, mounts and command (`Sandbox`). The
container's root is a folder of links into this machine's files, read-only: an overlay, which an ordinary user may not
mount over `/`, is not needed. What is not done: users of its own, capabilities, resource limits, seccomp.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

INTERFACE = "eth0"
SERVICES, SERVICE_GATEWAY = "10.0.0.0/24", "10.244.0.2"
"""The addresses of Services, and who answers there (`services`)."""
API_SERVICE = "10.0.0.1/32"
"""But for the API server's own, which the node answers."""
HOST = ".host"
"""Below the container's root: this machine's, where the links lead."""
OWN = ("dev", "proc", "run", "tmp")
"""Folders that are the container's own."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
STREAMS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`mounts` are (what is here, where it is in the container, read-only); `root` becomes the container's.

    `visible` are folders of this machine that the container sees where they are: the programs that it runs.
    """

    hostname: str
    address: str
    gateway: str
    root: str
    mounts: tuple[tuple[str, str, bool], ...]
    visible: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str]
    working_folder: str
    read_only: bool

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


def read(path: Path) -> Sandbox:
    return Sandbox(**json.loads(path.read_text()))


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def join_network(sandbox: Sandbox) -> None:
    """The kubelet moves one end of a cable in; until then there is no interface."""
    while subprocess.run(["ip", "link", "show", INTERFACE], capture_output=True, check=False).returncode:
        time.sleep(0.01)
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{sandbox.address}/16", "dev", INTERFACE)
    run("ip", "link", "set", INTERFACE, "up")
    run("ip", "route", "add", "default", "via", sandbox.gateway)
    run("ip", "route", "add", SERVICES, "via", SERVICE_GATEWAY)
    run("ip", "route", "add", API_SERVICE, "via", sandbox.gateway)


def enter_root(sandbox: Sandbox) -> None:
    """The machine's files, and over them volumes and devices where they belong."""
    root = Path(sandbox.root)
    root.mkdir(parents=True)
    run("mount", "--bind", str(root), str(root))
    (root / HOST).mkdir()
    run("mount", "--rbind", "/", f"{root}/{HOST}")
    run("mount", "-o", "remount,bind,ro", f"{root}/{HOST}")
    link_entries(Path("/"), root, skipped=OWN)
    for name in OWN:
        (root / name).mkdir()
    make_devices(root / "dev")
    run("mount", "-t", "proc", "proc", f"{root}/proc")
    for source, target, read_only in sandbox.mounts:
        bind(root, Path(source), Path(target), read_only=read_only)
    for folder in sandbox.visible:
        if Path(folder).parts[1] in OWN:
            bind(root, Path(folder), Path(folder), read_only=True)
    if sandbox.read_only:
        run("mount", "-o", "remount,bind,ro", str(root))
    os.chroot(root)
    os.chdir(sandbox.working_folder)


def link_entries(source: Path, target: Path, root: str = f"/{HOST}", skipped: tuple[str, ...] = ()) -> None:
    """Fill `target` with links to what lies in `source`, as seen below `root`. What is there already stays."""
    for entry in os.listdir(source):  # noqa: PTH208 - names alone
        if entry not in skipped and not os.path.lexists(target / entry):
            (target / entry).symlink_to(f"{root}{source / entry}")


def make_devices(folder: Path) -> None:
    run("mount", "-t", "tmpfs", "tmpfs", str(folder))
    for name in DEVICES:
        (folder / name).touch()
        run("mount", "--bind", f"/dev/{name}", str(folder / name))
    for name, target in STREAMS.items():
        (folder / name).symlink_to(target)
    (folder / "shm").mkdir(mode=0o1777)


def bind(root: Path, source: Path, target: Path, *, read_only: bool) -> None:
    place = make_place(root, target, folder=source.is_dir())
    run("mount", "--bind", str(source), str(place))
    if read_only:
        run("mount", "-o", "remount,bind,ro", str(place))


def make_place(root: Path, target: Path, *, folder: bool) -> Path:
    """An empty file or folder of the container's own at `target`; folders above it that were links become its own."""
    place, below = root, Path("/")
    for part in target.parts[1:-1]:
        place, below = place / part, below / part
        if place.is_symlink():
            place.unlink()
            place.mkdir()
            link_entries(below, place)
        place.mkdir(exist_ok=True)
    place = place / target.name
    if place.is_symlink():
        place.unlink()
    if folder:
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    return place


def main(path: Path) -> None:
    sandbox = read(path)
    join_network(sandbox)
    run("hostname", sandbox.hostname)
    enter_root(sandbox)
    try:
        os.execvpe(sandbox.command[0], sandbox.command, sandbox.environment)  # noqa: S606 - it becomes the container
    except OSError as error:
        print(f"{sandbox.command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
