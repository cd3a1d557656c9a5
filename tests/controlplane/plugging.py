"""`kubectl grpo` as a user types it, in a namespace of the tests."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from controller.cli import main
from tests.controlplane.operating import Operating
from tests.controlplane.world import ADMIN_TOKEN, ROOT


class Plugin:
    """Commands as the administrator, or with another kubeconfig."""

    def __init__(self, operating: Operating, folder: Path) -> None:
        self._operating, self._folder = operating, folder
        self.kubeconfig = operating.world.kubeconfig

    def __call__(self, *words: str, code: int = 0, kubeconfig: Path | None = None) -> Result:
        """Inside this process, without what its subprocesses print. The exit code must be `code`."""
        ended = CliRunner().invoke(main, self._whole(words, kubeconfig), prog_name="kubectl grpo")
        assert ended.exit_code == code, (words, ended.exit_code, ended.output, ended.exception)
        return ended

    @contextmanager
    def begun(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """As a program of its own, which hears Ctrl-C also where the tests run in the background; it does not outlive
        what it is used for.
        """
        command = [sys.executable, "-m", "controller", *self._whole(words, None)]
        environ = {**os.environ, "JAX_PLATFORMS": "cpu"}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            ["env", "--default-signal=INT", *command], cwd=ROOT, env=environ, text=True, **streams
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, *words: str, code: int = 0) -> str:
        """What such a program prints in the end."""
        with self.begun(*words) as process:
            printed, errors = process.communicate(timeout=120)
        assert process.returncode == code, (words, process.returncode, printed, errors)
        return printed + errors

    def _whole(self, words: tuple[str, ...], kubeconfig: Path | None) -> list[str]:
        space = () if {"-n", "-A"} & set(words) else ("-n", self._operating.namespace)
        return [words[0], "--kubeconfig", str(kubeconfig or self.kubeconfig), *space, *words[1:]]

    def file(self, name: str, **spec: Any) -> str:
        """The path of a job's file, as `operating.apply` would make it."""
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self._operating.body(name, **spec)))
        return str(path)

    def as_user(self, **rights: str) -> Path:
        """The kubeconfig of an account that may do this and nothing else: verbs by resource."""
        kubectl, space = self._operating.world.kubectl, ("-n", self._operating.namespace)
        kubectl(*space, "create", "serviceaccount", "user")
        for resource, verbs in rights.items():
            what = {"grpojobs": "grpojobs.grpo.dev", "logs": "pods/log"}.get(resource, resource)
            kubectl(*space, "create", "role", resource, f"--verb={verbs}", f"--resource={what}")
            account = f"--serviceaccount={self._operating.namespace}:user"
            kubectl(*space, "create", "rolebinding", resource, f"--role={resource}", account)
        token = kubectl(*space, "create", "token", "user").stdout.strip()
        path = self._folder / "kubeconfig.user"
        path.write_text(self.kubeconfig.read_text().replace(ADMIN_TOKEN, token))
        return path
