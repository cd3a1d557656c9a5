"""An operator in a test's namespace, jobs whose trainer is a script that does as it is told, and what is seen of them.

The script stands in for the trainer by name: `spec.code` comes before the image's own modules. It reads PLAN, which
tells each attempt's end, host by host (`scripted`).
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.cluster.resources import CONFIG_MAPS, GRPOJOBS, JOB_SETS, PODS
from controller.operator.options import Options
from controller.operator.parts import Operator
from controller.runtime.client import Api, ApiError, Resource
from controller.settings import TRAINER_IMAGE
from tests.controlplane.admission import install_crd
from tests.controlplane.looking import until
from tests.controlplane.world import World

EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
SCRIPT = Path(__file__).with_name("scripted.py")
Body = dict[str, Any]


def options(world: World, namespace: str, **changes: Any) -> Options:
    """An operator of one namespace, which serves nothing."""
    given: Body = {
        "kubeconfig": str(world.kubeconfig),
        "namespaces": (namespace,),
        "own_namespace": namespace,
        "image": TRAINER_IMAGE,
        "workers": 4,
        "resync_minutes": 60.0,
        "leader_election": False,
        "lease": "grpo-operator",
        "identity": "test",
        "metrics": None,
        "webhook": None,
        "webhook_service": "grpo-operator",
        "webhook_configuration": None,
        "certificates": "secret:grpo-operator-tls",
        "progress": None,
        "progress_service": "grpo-operator-progress",
        "progress_url": None,
        "pod_address": None,
        "log_format": "text",
        "log_level": "info",
        "stop_seconds": 10.0,
    }
    return Options(**given | changes)


class Operating:
    """One namespace with its operator. The operator is this process's, over the real API.

    Where something else installs GRPOJob's definition, `define` is False.
    """

    def __init__(self, world: World, namespace: str, define: bool = True) -> None:
        self.world, self.namespace = world, namespace
        self.api = Api.connect(str(world.kubeconfig), "tests")
        self._operator: Operator | None = None
        if define:
            install_crd(world)
        body = {"metadata": {"name": "script"}, "data": {"trainer.py": SCRIPT.read_text()}}
        self.api.create(CONFIG_MAPS, body, namespace)

    def start(self, heard: list[tuple[str, str]] | None = None, **changes: Any) -> None:
        """With `heard`, every request of the operator is written there: method and path."""
        self._operator = Operator(options(self.world, self.namespace, **changes))
        if heard is not None:
            listen(self._operator.api, heard)
        self._operator.start()

    def stop(self) -> None:
        if self._operator is not None:
            self._operator.stop()
            self._operator = None

    def close(self) -> None:
        self.stop()
        self.api.close()

    # --- jobs

    def apply(self, name: str, plan: list[list[str]] | None = None, hosts: int = 1, **spec: Any) -> None:
        """A job of `hosts` pods; attempts beyond the plan end with 0."""
        self.api.create(GRPOJOBS, self.body(name, plan, hosts, **spec), self.namespace)

    def body(self, name: str, plan: list[list[str]] | None = None, hosts: int = 1, **spec: Any) -> Body:
        return {
            "apiVersion": GRPOJOBS.api_version,
            "kind": GRPOJOBS.kind,
            "metadata": {"name": name},
            "spec": {
                "modelPath": "Qwen/Qwen2.5-0.5B-Instruct",
                "cpu": {"hosts": hosts, "devicesPerHost": 1},
                "rollout": {"perDeviceBatchSize": 2},
                "code": {"configMap": "script"},
                "env": [{"name": "PLAN", "value": json.dumps(plan or [])}],
                "lifecycle": {"terminationGracePeriodSeconds": 5},
                **spec,
            },
        }

    def change(self, name: str, **spec: Any) -> None:
        self.api.patch(GRPOJOBS, name, self.namespace, {"spec": spec})

    def job(self, name: str) -> Body:
        return self.get(GRPOJOBS, name) or {}

    def status(self, name: str) -> Body:
        found: Body = self.job(name).get("status") or {}
        return found

    def attempts(self, name: str) -> list[Body]:
        found: list[Body] = (self.status(name).get("attempts") or {}).get("last") or []
        return found

    def condition(self, name: str, kind: str) -> tuple[str, str]:
        found = {one["type"]: one for one in self.status(name).get("conditions") or ()}
        return (found[kind]["status"], found[kind]["reason"]) if kind in found else ("", "")

    def message(self, name: str, kind: str) -> str:
        return next((one["message"] for one in self.status(name).get("conditions") or () if one["type"] == kind), "")

    # --- what there is

    def get(self, resource: Resource, name: str) -> Body | None:
        try:
            return self.api.get(resource, name, self.namespace)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    def job_set(self, name: str) -> Body | None:
        return self.get(JOB_SETS, name)

    def pods(self, name: str) -> list[Body]:
        found: list[Body] = self.api.list(PODS, self.namespace, label_selector=f"grpo.dev/job={name}")["items"]
        return found

    def events(self, name: str) -> list[str]:
        found = self.api.list(EVENTS, self.namespace)["items"]
        ours = (one for one in found if (one["regarding"]["kind"], one["regarding"]["name"]) == (GRPOJOBS.kind, name))
        return [one["reason"] for one in ours]

    def wait(self, holds: Callable[[], Any], what: str, seconds: float = 180) -> Any:
        return until(holds, what, seconds)

    def wait_phase(self, name: str, *phases: str, seconds: float = 180) -> Body:
        """The status once its phase is one of these."""

        def reached() -> Body | None:
            status = self.status(name)
            return status if status.get("phase") in phases else None

        end = time.monotonic() + seconds
        while not (found := reached()):
            assert time.monotonic() < end, (
                f"{name} is not {' or '.join(phases)} in {seconds:.0f} s: {self.status(name)}"
            )
            time.sleep(0.1)
        return found


def listen(api: Api, heard: list[tuple[str, str]]) -> None:
    plain = api.request

    def request(method: str, path: str, *given: Any, **named: Any) -> Any:
        heard.append((method, path))
        return plain(method, path, *given, **named)

    api.request = request  # type: ignore[method-assign]


def said(attempt: int, host: int, lines: int) -> list[str]:
    """What the script prints at the word `say:LINES`."""
    return [f"attempt {attempt} host {host} line {number}" for number in range(lines)]
