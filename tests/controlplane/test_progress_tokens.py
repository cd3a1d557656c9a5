"""Whom the progress endpoint hears, as a real API server judges tokens of real pods."""

import json
from typing import Any

import yaml

from controller import names
from controller.progress.callers import COMPLETION_INDEX, JOB_INDEX, JOB_SET_UID, TOKEN_REVIEWS, Callers
from controller.progress.endpoint import Answer, Endpoint
from controller.progress.reaching import CONFIG_MAPS, ENDPOINT_SLICES, Lead, Trust
from controller.progress.reports import Reports
from controller.runtime.client import Api, ApiError, Resource
from tests.controlplane.looking import until
from tests.controlplane.world import World
from trainer.contract.report import AUDIENCE, CA_FILE

PODS = Resource("", "v1", "pods", "Pod")
REPORT = json.dumps({"attempt": 0, "heartbeat": 1, "step": 1, "total_steps": 2}).encode()


def pod(name: str, **labels: str) -> dict[str, Any]:
    """One that waits for its image for ever: of a pod that reports, only its name is needed."""
    container = {"name": "trainer", "image": "missing.test/trainer"}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def token(world: World, namespace: str, pod: str | None, audience: str) -> str:
    """As a kubelet asks for it: bound to the pod, for the audience."""
    bound = [] if pod is None else ["--bound-object-kind=Pod", f"--bound-object-name={pod}"]
    made = world.kubectl("-n", namespace, "create", "token", "default", f"--audience={audience}", *bound)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_only_a_token_of_the_pod_of_process_0_is_heard(world: World, namespace: str, api: Api) -> None:
    """The API server tells the pod of a token, its audience, and that a pod is gone; the token opens nothing else."""
    first = {names.LABEL_JOB: "demo", JOB_INDEX: "0", COMPLETION_INDEX: "0", JOB_SET_UID: "set-1"}
    bodies = [pod("demo-0", **first), pod("demo-1", **(first | {COMPLETION_INDEX: "1"})), pod("other")]
    applied = world.kubectl("-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump_all(bodies))
    assert applied.returncode == 0, applied.stderr

    def found(key: str) -> dict[str, Any] | None:
        try:
            return api.get(PODS, key.partition("/")[2], namespace)
        except ApiError:
            return None

    reports, job = Reports(), {"metadata": {"uid": "job-1"}}
    callers = Callers(lambda body: api.post(TOKEN_REVIEWS, body), found, {f"{namespace}/demo": job}.get)
    endpoint = Endpoint(callers, reports)

    def post(token: str) -> Answer:
        return endpoint.take({"Authorization": f"Bearer {token}"}, REPORT)

    good = token(world, namespace, "demo-0", AUDIENCE)
    assert post(good) == Answer(204)
    report = reports.latest("job-1")
    assert report is not None
    assert (report.job_set_uid, report.step, report.total_steps) == ("set-1", 1, 2)
    refused = {
        "for another audience": (token(world, namespace, "demo-0", "https://kubernetes.default.svc"), 401),
        "of no pod": (token(world, namespace, None, AUDIENCE), 401),
        "made up": ("a.b.c", 401),
        "of process 1": (token(world, namespace, "demo-1", AUDIENCE), 403),
        "of another's pod": (token(world, namespace, "other", AUDIENCE), 403),
    }
    assert {case: post(given).status for case, (given, _) in refused.items()} == {
        case: status for case, (_, status) in refused.items()
    }
    asked = world.kubectl("--token", good, "-n", namespace, "get", "pods")
    assert "You must be logged in" in asked.stderr, asked
    world.kubectl("-n", namespace, "delete", "pod", "demo-0", "--force", "--grace-period=0")
    until(lambda: found(f"{namespace}/demo-0") is None, "the end of the pod")
    assert post(good).status == 403


def test_namespaces_know_whom_to_trust_and_the_service_who_leads(world: World, namespace: str, api: Api) -> None:
    """Written once each, again after a change, and taken over by the next leader."""
    authority = [b"first"]
    trust = Trust(api, lambda: authority[0])

    def held() -> tuple[str, str]:
        found = api.get(CONFIG_MAPS, names.AUTHORITY_CONFIG_MAP, namespace)
        return found["data"][CA_FILE], found["metadata"]["resourceVersion"]

    trust.reach(namespace)
    first = held()
    trust.reach(namespace)
    Trust(api, lambda: authority[0]).reach(namespace)
    assert held() == first
    authority[0] = b"first and second"
    trust.reach(namespace)
    assert held()[0] == "first and second"

    for address in ("10.244.0.7", "10.244.0.8"):
        Lead(api, namespace, "progress", address, 8443).take()
    (found,) = api.list(ENDPOINT_SLICES, namespace, label_selector="kubernetes.io/service-name=progress")["items"]
    assert [endpoint["addresses"] for endpoint in found["endpoints"]] == [["10.244.0.8"]]
    assert found["ports"] == [{"name": "progress", "port": 8443, "protocol": "TCP"}]
