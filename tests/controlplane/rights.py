"""An operator that may do what the chart's RBAC says, less one verb, and all that an installation does with its rights.

`Rights` applies the chart's account, roles and webhook configuration, as `helm template` renders them for one
namespace, and starts the operator with a token of that account. `steps` is a life in which every right is needed.
"""

import base64
import json
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from controller.cluster.resources import CONFIG_MAPS, GRPOJOBS
from controller.runtime.client import ApiError, Resource
from tests.controlplane.looking import until
from tests.controlplane.operating import EVENTS, Operating
from tests.controlplane.queues import QUEUE, give_quota
from tests.controlplane.releases import CHART, helm
from tests.controlplane.world import ROOT, World, write_kubeconfig

NAME = "grpo-operator"
TEMPLATES = ("rbac", "serviceaccount", "services", "webhook")
RUN = [["run"]] * 9
SECONDS, AFTER_REFUSAL = 90.0, 8.0
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
SECRETS = Resource("", "v1", "secrets", "Secret")
SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
CONFIGURATIONS = Resource("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "", False)
Body = dict[str, Any]
Verb = tuple[str, str, str]
"""Group, resource with its subresource, verb."""


def manifests(jobs: str, system: str) -> list[Body]:
    shown = [word for name in TEMPLATES for word in ("--show-only", f"templates/{name}.yaml")]
    namespaces = ("--namespace", system, f"--set-json=watchNamespaces={json.dumps([jobs])}")
    done = helm("template", "grpo", str(CHART), *namespaces, *shown)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one]


def verbs(found: list[Body]) -> list[Verb]:
    """All that the operator's roles allow."""
    return sorted(
        (group, resource, verb)
        for role in found
        if "rules" in role
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def without(found: list[Body], dropped: Verb) -> list[Body]:
    for rule in (rule for role in found for rule in role.get("rules", ())):
        if (rule["apiGroups"], rule["resources"]) == ([dropped[0]], [dropped[1]]):
            rule["verbs"] = [verb for verb in rule["verbs"] if verb != dropped[2]] or ["none"]
    return found


class Rights:
    """An installation without the right `dropped`, for the namespace `jobs`, which it makes."""

    def __init__(self, world: World, jobs: str, dropped: Verb | None = None) -> None:
        self.world, self.jobs, self.system, self.dropped = world, jobs, f"{jobs}-system", dropped
        self.log = world.folder / f"{self.system}.log"
        for namespace in (self.jobs, self.system):
            world.kubectl("create", "namespace", namespace)
            account = ("-n", namespace, "get", "serviceaccount", "default")
            until(lambda account=account: world.kubectl(*account).returncode == 0, "the namespace's account")
        found = manifests(self.jobs, self.system)
        self._apply(without(found, dropped) if dropped else found)
        give_quota(world, self.jobs, cpus=0)
        self.operating = Operating(world, self.jobs, define=False)
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def _apply(self, found: list[Body]) -> None:
        applied = self.world.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(found))
        assert applied.returncode == 0, applied.stderr

    def start(self) -> None:
        token = self.world.kubectl("-n", self.system, "create", "token", NAME).stdout.strip()
        path = self.world.folder / f"{self.system}.kubeconfig"
        flags = {
            "kubeconfig": write_kubeconfig(path, self.world.server, self.world.authority, token),
            "namespace": self.jobs,
            "own-namespace": self.system,
            "webhook-configuration": f"{NAME}.{self.system}",
            "webhook": "127.0.0.1:0",
            "metrics": "none",
            "progress": f"127.0.0.1:{self.port}",
            "pod-address": "10.244.250.1",
            "log-format": "text",
        }
        command = [sys.executable, "-m", "controller.operator", *(f"--{name}={value}" for name, value in flags.items())]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(120)

    def end(self) -> None:
        self.stop()
        self.operating.close()
        self.world.kubectl("delete", "namespace", self.jobs, self.system, "--wait=false")
        self.world.kubectl("delete", f"clusterrole/{NAME}.{self.system}", f"clusterrolebinding/{NAME}.{self.system}")
        self.world.kubectl("delete", f"validatingwebhookconfiguration/{NAME}.{self.system}")

    # --- what every right is needed for

    def first_failure(self) -> str | None:
        """The step that did not come about, None where all did. Once a refusal is told, no step is waited for long."""
        for name, step in self._steps():
            end, heard = time.monotonic() + SECONDS, False
            while not step():
                if not heard and self.dropped and self.names(self.dropped):
                    end, heard = min(end, time.monotonic() + AFTER_REFUSAL), True
                if time.monotonic() > end:
                    return name
                time.sleep(0.2)
        return None

    def names(self, right: Verb) -> bool:
        """Whether the log, or a condition of a job, tells that this right is missing."""
        group, resource, verb = right
        sentence = f'cannot {verb} resource "{resource}" in API group "{group}"'
        if resource == "grpojobs/finalizers":
            sentence = "cannot set blockOwnerDeletion"
        told = self.operating.api.list(GRPOJOBS, self.jobs)["items"]
        return sentence in self.log.read_text() or sentence in str([job.get("status") for job in told])

    def _steps(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        self.start()
        yield "a leader", lambda: self._own(LEASES, NAME)
        yield "a certificate", lambda: self._own(SECRETS, f"{NAME}-tls")
        yield "the API server's trust", self._is_trusted
        yield "an address for reports", lambda: self._own(SLICES, f"{NAME}-progress-ipv4")
        yield "a judged token", lambda: self._report() == 401
        yield from self._jobs()
        renewed = self._own(LEASES, NAME)["spec"]["renewTime"]
        yield "a renewed lease", lambda: self._own(LEASES, NAME)["spec"]["renewTime"] != renewed and self.is_alive
        self.stop()
        self._spoil()
        self.start()
        yield "a new certificate", lambda: self._own(SECRETS, f"{NAME}-tls")["data"]["tls.crt"] != "c3BvaWxlZA=="

    def _jobs(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        operating, short = self.operating, {"ttlSecondsAfterFinished": 1, "terminationGracePeriodSeconds": 5}
        operating.apply("short", [["0"]], lifecycle=short)
        operating.apply("long", RUN)
        operating.apply("queued", queue={"localQueue": QUEUE})
        nowhere = [{"name": "gone", "configMap": {"name": "gone"}}]
        operating.apply("waiting", RUN, volumes=nowhere)
        yield "a running job", lambda: self._phase("long") == "Running"
        yield "whom pods trust", lambda: operating.get(CONFIG_MAPS, "grpo-operator-ca")
        first = operating.job_set("long") or {}
        self.world.kubectl("-n", self.jobs, "delete", "jobset", "long", "--wait=false")
        yield "a JobSet made again", lambda: _uid(operating.job_set("long")) not in ("", _uid(first))
        for _ in range(2):
            yield "running pods", lambda: self._phase("long") == "Running"
            operating.change("long", suspend=True)
            yield "no JobSet", lambda: self._phase("long") == "Suspended" and not operating.job_set("long")
            operating.change("long", suspend=False)
        yield "an event that repeats", self._has_series
        yield "why a job is queued", lambda: "quota" in operating.message("queued", "Admitted")
        yield "why a pod waits", lambda: "FailedMount" in operating.message("waiting", "Running")
        yield "the end of a finished job", lambda: not operating.job("short")

    def _own(self, resource: Resource, name: str) -> Body:
        operating = self.operating
        return (_read(operating, resource, name, self.system)) or {}

    def _is_trusted(self) -> bool:
        (one,) = self._own(CONFIGURATIONS, f"{NAME}.{self.system}")["webhooks"]
        return "caBundle" in one["clientConfig"]

    def _report(self) -> int:
        """The status of a report with a token that no API server knows."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        head = {"Authorization": "Bearer unknown"}
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}/progress", data=b"{}", headers=head)
        try:
            with urllib.request.urlopen(request, context=context, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def _phase(self, name: str) -> str:
        return str(self.operating.status(name).get("phase"))

    def _has_series(self) -> bool:
        found = self.operating.api.list(EVENTS, self.jobs)["items"]
        return any(one.get("series") and one["regarding"]["kind"] == GRPOJOBS.kind for one in found)

    def _spoil(self) -> None:
        spoiled = {"data": {"tls.crt": base64.b64encode(b"spoiled").decode()}}
        self.operating.api.patch(SECRETS, f"{NAME}-tls", self.system, spoiled)


def _uid(body: Body | None) -> str:
    return str(body["metadata"]["uid"]) if body else ""


def _read(operating: Operating, resource: Resource, name: str, namespace: str) -> Body | None:
    try:
        found: Body = operating.api.get(resource, name, namespace)
    except ApiError as error:
        if error.is_not_found:
            return None
        raise
    return found
