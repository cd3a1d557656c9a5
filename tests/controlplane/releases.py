"""The chart as an administrator installs it: the real `helm`, against the control plane of the tests."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.controlplane.binaries import program
from tests.controlplane.looking import until
from tests.controlplane.world import ROOT, World

CHART = ROOT / "charts" / "grpojob-operator"
FROZEN = ROOT / "tests" / "data" / "charts" / "grpojob-operator-0.1.0.tgz"
"""As it was released first."""
SECONDS = 90
DEFINITION = "customresourcedefinition/grpojobs.grpo.dev"
Done = subprocess.CompletedProcess[str]


def helm(*arguments: str, kubeconfig: Path | None = None, seconds: float = SECONDS + 30) -> Done:
    """One command, with no state of this machine's user."""
    with tempfile.TemporaryDirectory() as home:
        places = dict.fromkeys(("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"), home)
        cluster = {"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}
        return subprocess.run(
            [str(program("helm")), *arguments],
            env=os.environ | places | cluster,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


def set_flags(values: Mapping[str, Any]) -> list[str]:
    return [f"--set-json={path}={json.dumps(value)}" for path, value in values.items()]


class Release:
    """`name` in `namespace`, which the first install makes."""

    def __init__(self, world: World, name: str, namespace: str) -> None:
        self.world, self.name, self.namespace = world, name, namespace

    def run(self, verb: str, *arguments: str) -> Done:
        timeout = () if any(one.startswith("--timeout") for one in arguments) else (f"--timeout={SECONDS}s",)
        where = ("--namespace", self.namespace)
        return helm(verb, self.name, *arguments, *where, *timeout, kubeconfig=self.world.kubeconfig)

    def install(self, *flags: str, chart: Path = CHART, **values: Any) -> Done:
        """`a__b=1` sets `a.b`. Without flags it waits until all is ready."""
        return self._put("install", chart, values, "--create-namespace", *(flags or ("--wait",)))

    def upgrade(self, *flags: str, chart: Path = CHART, **values: Any) -> Done:
        return self._put("upgrade", chart, values, *(flags or ("--wait",)))

    def uninstall(self) -> Done:
        return self.run("uninstall", "--wait", "--ignore-not-found")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> Done:
        return self.world.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def log(self) -> str:
        """What the operator's pods have printed, those that are gone too."""
        found = self.world.folder.glob("pods/*/log")
        return "\n".join(path.read_text(errors="replace") for path in found)

    def _put(self, verb: str, chart: Path, values: Mapping[str, Any], *flags: str) -> Done:
        spelt = {path.replace("__", "."): value for path, value in values.items()}
        return self.run(verb, str(chart), *set_flags(spelt), *flags)


def forget_definition(world: World) -> None:
    """The cluster as before any install; all jobs go with it."""
    gone = world.kubectl("delete", DEFINITION, "--ignore-not-found", "--timeout=60s", timeout=90)
    assert gone.returncode == 0, gone.stderr
    until(lambda: "NotFound" in world.kubectl("get", DEFINITION).stderr, "the end of the definition")
