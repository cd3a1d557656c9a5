"""The operator as a process where the pods' network is, with its endpoint for their reports."""

import subprocess
import sys

from tests.controlplane.world import NODE_ADDRESS, ROOT, World

PORT = 9544
MODULE = ("-m", "controller.operator")


class Process:
    """The operator of one namespace, started; pods reach it at `address`. `program` is what Python runs."""

    def __init__(
        self, world: World, namespace: str, address: str = NODE_ADDRESS, program: tuple[str, ...] = MODULE
    ) -> None:
        flags = {
            "kubeconfig": world.folder / "kubeconfig.inside",
            "namespace": namespace,
            "own-namespace": namespace,
            "metrics": "none",
            "webhook": "none",
            "progress": f"0.0.0.0:{PORT}",
            "progress-url": f"https://{address}:{PORT}/progress",
            "log-format": "text",
        }
        command = [sys.executable, *program, *(f"--{name}={value}" for name, value in flags.items())]
        self.log = world.folder / f"operator-{namespace}.log"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(world.inside(*command), cwd=ROOT, stdout=log, stderr=log)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(120)
