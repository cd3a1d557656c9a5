"""The CRD and the webhook in a control plane of the tests, and requests to the API server as any client may send them.

`python -m tests.controlplane.admission KUBECONFIG NAMESPACE NAME PORT`, inside a `World`, is the webhook alone: a
replica that takes its certificate from the Secret NAME and is trusted by the configuration NAME.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import urllib3
import yaml

from controller.https.door import Door
from controller.https.sources import SecretSource
from controller.runtime.client import Api
from controller.webhook.admission import Admission
from controller.webhook.registration import PATH, configuration, trust
from tests.controlplane.looking import until
from tests.controlplane.world import ADMIN_TOKEN, ROOT, World

JOBS = "/apis/grpo.dev/v1alpha1/namespaces/{}/grpojobs"
LOOK_SECONDS = 0.5

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    status: int
    body: Json
    warnings: tuple[str, ...]

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def by_webhook(self) -> bool:
        return self.message.startswith("admission webhook ")

    @property
    def causes(self) -> tuple[str, ...]:
        """What clients show, a line each."""
        causes = self.body.get("details", {}).get("causes", ())
        return tuple(f"{one['field']}: {one['message']}" for one in causes)


class Client:
    """Raw requests, as the administrator; safe for many threads."""

    def __init__(self, world: World) -> None:
        self._server = world.server
        self._pool = urllib3.PoolManager(16, ca_certs=str(world.folder / "ca.crt"), retries=False, timeout=120)

    def send(self, method: str, path: str, body: Json | bytes, kind: str = "application/json") -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": kind}
        answer = self._pool.request(method, self._server + path, body=data, headers=headers)
        content = answer.json() if answer.headers.get("Content-Type", "").startswith("application/json") else {}
        warnings = [one.partition('"')[2][:-1].replace('\\"', '"') for one in answer.headers.getlist("Warning")]
        return Answer(answer.status, content, tuple(one.replace("\\\\", "\\") for one in warnings))

    def create(self, namespace: str, job: Json | bytes, query: str = "") -> Answer:
        return self.send("POST", JOBS.format(namespace) + query, job)

    def patch(self, namespace: str, name: str, change: Json) -> Answer:
        path = f"{JOBS.format(namespace)}/{name}"
        return self.send("PATCH", path, change, "application/merge-patch+json")

    def jobs(self, namespace: str) -> dict[str, Json]:
        """All jobs of a namespace by name."""
        found = json.loads(self._get(JOBS.format(namespace)))
        return {job["metadata"]["name"]: job for job in found["items"]}

    def _get(self, path: str) -> bytes:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        return self._pool.request("GET", self._server + path, headers=headers).data

    def close(self) -> None:
        self._pool.clear()


def install_crd(world: World, with_rules: bool = True) -> None:
    """As it is committed, or without its CEL rules."""
    definition = yaml.safe_load((ROOT / "crds" / "grpojobs.yaml").read_text())
    stdin = json.dumps(definition if with_rules else without_rules(definition))
    applied = world.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=stdin)
    assert applied.returncode == 0, applied.stderr
    client, doubtful = Client(world), job_of("probe", tpu={"accelerator": "a", "topology": "b"})
    expected = 422 if with_rules else 201
    until(lambda: client.create("default", doubtful, "?dryRun=All").status == expected, "the API of GRPOJobs")
    client.close()


def without_rules(node: Any) -> Any:
    """A schema in which the API server checks values one by one only."""
    if isinstance(node, dict):
        return {key: without_rules(value) for key, value in node.items() if key != "x-kubernetes-validations"}
    return [without_rules(one) for one in node] if isinstance(node, list) else node


class Webhook:
    """Replicas of the webhook for the namespaces that carry the label `judged-by: NAME`."""

    def __init__(self, world: World, namespace: str, name: str) -> None:
        self.world, self.namespace, self.name = world, namespace, name
        self.replicas: list[subprocess.Popen[bytes]] = []

    def register(self, port: int) -> None:
        """The API server asks the replica at this port; the replicas tell it whom to trust."""
        known = configuration(self.name, {"url": f"https://127.0.0.1:{port}{PATH}"})
        known["webhooks"][0]["namespaceSelector"] = {"matchLabels": {"judged-by": self.name}}
        applied = self.world.kubectl("apply", "-f", "-", stdin=json.dumps(known))
        assert applied.returncode == 0, applied.stderr

    def start(self, port: int) -> None:
        program = [sys.executable, "-m", "tests.controlplane.admission", str(self.world.folder / "kubeconfig.inside")]
        command = self.world.inside(*program, self.namespace, self.name, str(port))
        with (self.world.folder / f"{self.name}-{port}.log").open("ab") as log:
            self.replicas.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))

    def judges(self, namespace: str) -> None:
        """From now on, seen by a refusal."""
        self.world.kubectl("label", "namespace", namespace, f"judged-by={self.name}", "--overwrite")
        client = Client(self.world)
        broken = job_of("probe", rollout={"batchSize": 100})
        until(lambda: client.create(namespace, broken, "?dryRun=All").by_webhook, "the webhook's first refusal")
        client.close()

    def end(self) -> None:
        self.world.kubectl("delete", "validatingwebhookconfiguration", self.name)
        for replica in self.replicas:
            replica.terminate()
        for replica in self.replicas:
            replica.wait(120)


def job_of(name: str, **spec: Any) -> Json:
    """A valid job on one CPU host, with these keys of its spec instead."""
    whole = {
        "modelPath": "/models/m",
        "cpu": {"hosts": 1},
        "rollout": {"batchSize": 96},
        "output": {"uri": "gs://bucket/runs"},
    }
    head = {"apiVersion": "grpo.dev/v1alpha1", "kind": "GRPOJob", "metadata": {"name": name}}
    return {**head, "spec": {**whole, **spec}}


def main(kubeconfig: str, namespace: str, name: str, port: str) -> None:
    api = Api.connect(kubeconfig, "grpo-webhook-of-tests")
    source = SecretSource(
        api, namespace, name, ("127.0.0.1",), announce=lambda authorities: trust(api, name, authorities)
    )
    Door(source, "127.0.0.1", int(port), Admission(), look_seconds=LOOK_SECONDS).start()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
