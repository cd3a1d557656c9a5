"""A control plane in namespaces of its own, as tests hold it: how it is started, entered, disturbed and ended.

`World` starts `plane` as process 1 of new network, process and mount namespaces (a user namespace too, where it is not
root), with the ports that a cluster has. When it ends, all in it ends. The API server is reached from outside through a
socket that was made before the namespaces were; a program that others must reach runs inside, by `World.inside`.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.controlplane.binaries import program

ADMIN_TOKEN = "admin-of-the-tests"
NODE_ADDRESS = "10.244.0.1"
"""Where programs inside, pods among them, reach the API server (443) and one another."""
ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("setpriv", "unshare", "nsenter", "ip", "mount")


class World:
    """A running control plane below `folder`; `server` is its address from outside, `inner_server` from inside.

    `kubeconfig` and `inner_kubeconfig` have the administrator's token. Each program has its log in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in NEEDED if shutil.which(name) is None]
        assert not missing, f"the control plane runs in namespaces of Linux, and {missing[0]} is not on the PATH"
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as door, (folder / "world.log").open("w") as log:
            self.server = f"https://127.0.0.1:{door.getsockname()[1]}"
            self._process = subprocess.Popen(
                [*_unshare(), sys.executable, "-m", "tests.controlplane.plane", str(folder), str(door.fileno())],
                cwd=ROOT,
                pass_fds=[door.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            self._hear()
        except BaseException:
            self.end()
            raise
        self._pid = int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()[0])
        self.inner_server = f"https://{NODE_ADDRESS}"
        self.authority = folder / "ca.crt"
        self.kubeconfig = write_kubeconfig(folder / "kubeconfig", self.server, self.authority)
        self.inner_kubeconfig = folder / "kubeconfig.inside"

    def kubectl(
        self, *arguments: str, stdin: str | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        command = [str(program("kubectl")), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)

    def inside(self, *command: str) -> list[str]:
        """The command that runs `command` on the cluster's network; it is the process that `Popen` names by its pid.

        It is killed with the thread that started it, so that nothing outlives a test run that is killed.
        """
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self._pid}", *user, "--net", "--", "setpriv", "--pdeathsig", "KILL", *command]

    def stop(self, name: str) -> None:
        """Kill one of the plane's programs (`kube-apiserver`, `jobset`, …) as a crash would, and leave it down."""
        self._ask("stop", name)

    def start(self, name: str) -> None:
        """Start a program again that was stopped, and wait until it answers."""
        self._ask("start", name)

    def add(self, name: str) -> None:
        """Install a controller that not every test needs: `kueue`."""
        self._ask("add", name)

    def remove(self, name: str) -> None:
        """End such a controller and its webhooks; its definitions stay, as after an uninstall."""
        self._ask("remove", name)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, verb: str, name: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([verb, name]) + "\n")
        self._process.stdin.flush()
        self._hear()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        told = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(told) if told else {"failed": self._last_words()}
        assert "failed" not in answer, f"the control plane: {answer['failed']}"

    def _last_words(self) -> str:
        words = (self.folder / "world.log").read_text()[-2000:]
        if "unshare: " in words:
            return f"it needs root, or user namespaces for ordinary users, which this machine refuses: {words.strip()}"
        return words


def _unshare() -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    die_too = ["setpriv", "--pdeathsig", "KILL"]  # with a test run that is killed
    return [*die_too, "unshare", *user, "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "--"]


def write_kubeconfig(path: Path, server: str, authority: Path, token: str = ADMIN_TOKEN) -> Path:
    """A kubeconfig for whoever the token names."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(content))
    return path
