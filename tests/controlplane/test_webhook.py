"""The webhook beside a real API server: what users are told, replicas that share a certificate, and its absence."""

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.https.certificates import LIFETIME, Certificate, issue
from controller.https.sources import SECRETS, SecretSource
from controller.runtime.client import Api
from controller.webhook.registration import CONFIGURATIONS, PATH, configuration, trust
from tests.controlplane.admission import Client, Json, Webhook, install_crd, job_of
from tests.controlplane.looking import until
from tests.controlplane.world import NODE_ADDRESS, ROOT, World

PORTS = (9641, 9642)
BROKEN: Json = {"rollout": {"batchSize": 100}, "lifecycle": {"startupDeadlineSeconds": 20, "activeDeadlineSeconds": 10}}
BATCH = "spec.rollout.batchSize: 100 must be a multiple of numPreQ = 8 (each prompt has 8 completions); use 96 or 104"
DEADLINE = "spec.lifecycle.startupDeadlineSeconds: 20 must be below activeDeadlineSeconds = 10; use 5 or less"


@pytest.fixture(scope="module")
def webhook(world: World) -> Iterator[Webhook]:
    """Two replicas that start at once, of which the API server asks the second."""
    install_crd(world)
    world.kubectl("create", "namespace", "webhook")
    webhook = Webhook(world, "webhook", "of-the-tests")
    webhook.register(PORTS[1])
    for port in PORTS:
        webhook.start(port)
    yield webhook
    webhook.end()


@pytest.fixture
def judged(webhook: Webhook, namespace: str) -> str:
    """A namespace whose jobs the webhook judges."""
    webhook.judges(namespace)
    return namespace


@pytest.fixture
def raw(world: World) -> Iterator[Client]:
    found = Client(world)
    yield found
    found.close()


def test_kubectl_shows_every_violation_at_its_path(world: World, judged: str) -> None:
    """Each way of applying, dry runs too, lists what is wrong in the words of `grpoctl validate`; nothing is stored."""
    broken = json.dumps(job_of("job", **BROKEN))
    for arguments in (("apply",), ("apply", "--server-side"), ("create",), ("apply", "--dry-run=server")):
        done = world.kubectl("-n", judged, *arguments, "-f", "-", stdin=broken)
        assert done.returncode == 1
        assert done.stderr == f'The GRPOJob "job" is invalid: \n* {BATCH}\n* {DEADLINE}\n'
    assert "NotFound" in world.kubectl("-n", judged, "get", "grpojob", "job").stderr


def test_a_warning_does_not_hold_a_job_up(world: World, judged: str) -> None:
    """What is rounded, and what may be lost, is told by kubectl; the job is stored."""
    tpu = {"accelerator": "tpu-v6e-slice", "topology": "4x4", "capacity": {"type": "Spot"}}
    rounded = {"batchSize": 136, "padding": "RoundUp"}
    job = json.dumps(job_of("job", tpu=tpu, cpu=None, rollout=rounded, output={}))
    done = world.kubectl("-n", judged, "apply", "-f", "-", stdin=job)

    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert all(line.startswith("Warning: spec.") for line in lines)
    assert any("rollout" in line and "136" in line for line in lines)
    assert any("Spot" in line for line in lines)


def test_a_change_is_judged_and_what_stays_is_not(webhook: Webhook, world: World, namespace: str, raw: Client) -> None:
    """A job that was stored unjudged can be labelled, suspended and deleted; no new fault gets in."""
    job = job_of("job", rollout=BROKEN["rollout"])
    job["metadata"]["finalizers"] = ["test.example/stay"]
    assert raw.create(namespace, job).status == 201
    webhook.judges(namespace)

    assert raw.patch(namespace, "job", {"metadata": {"labels": {"a": "b"}}}).status == 200
    assert raw.patch(namespace, "job", {"spec": {"suspend": True}}).status == 200
    worse = raw.patch(namespace, "job", {"spec": {"lifecycle": BROKEN["lifecycle"]}})
    assert (worse.status, worse.causes) == (422, (DEADLINE,))
    world.kubectl("-n", namespace, "delete", "grpojob", "job", "--wait=false")
    assert raw.patch(namespace, "job", {"metadata": {"finalizers": None}}).status == 200
    assert "NotFound" in world.kubectl("-n", namespace, "get", "grpojob", "job").stderr


def held(api: Api, webhook: Webhook) -> dict[str, bytes]:
    data = api.get(SECRETS, webhook.name, webhook.namespace)["data"]
    return {key: base64.b64decode(value) for key, value in data.items()}


def trusted(api: Api, webhook: Webhook) -> bytes:
    (one,) = api.get(CONFIGURATIONS, webhook.name)["webhooks"]
    return base64.b64decode(one["clientConfig"]["caBundle"])


def test_replicas_share_one_certificate(webhook: Webhook, judged: str, raw: Client, api: Api) -> None:
    """Whichever of them made it, the API server trusts it, and either of them can be asked."""
    assert trusted(api, webhook) == held(api, webhook)["ca.crt"]
    for port in PORTS:
        webhook.register(port)
        webhook.judges(judged)
        assert raw.create(judged, job_of("job", **BROKEN), "?dryRun=All").causes == (BATCH, DEADLINE)


def test_replicas_that_renew_at_once_agree(namespace: str, api: Api) -> None:
    """Of eight that find none, and of eight that find one that ends, one writes and all serve what it wrote."""

    def served(moment: datetime) -> Certificate:
        found: list[Certificate] = []
        source = SecretSource(api, namespace, "raced", ("a.svc",), now=lambda: moment)
        threads = [threading.Thread(target=lambda: found.append(source.current())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        (one,) = set(found)
        return one

    first = served(datetime.now(UTC) - LIFETIME * 0.7)
    second = served(datetime.now(UTC))
    assert first.chain != second.chain
    assert first.authorities in second.authorities


def test_a_renewal_refuses_nobody(webhook: Webhook, judged: str, raw: Client, api: Api) -> None:
    """The certificate ends soon: it is renewed, trusted and served without one request that was not judged."""
    before = held(api, webhook)
    old = issue(("127.0.0.1",), datetime.now(UTC) - LIFETIME * 0.9, before["ca.crt"])
    secret = api.get(SECRETS, webhook.name, webhook.namespace)
    parts: dict[str, Any] = {"tls.crt": old.chain, "tls.key": old.key, "ca.crt": old.authorities}
    secret["data"] = {key: base64.b64encode(value).decode() for key, value in parts.items()}
    trust(api, webhook.name, old.authorities)
    api.replace(SECRETS, secret, webhook.namespace)

    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert raw.create(judged, job_of("job", **BROKEN), "?dryRun=All").causes == (BATCH, DEADLINE)
    after = held(api, webhook)
    assert after["tls.crt"] not in (before["tls.crt"], old.chain)
    assert trusted(api, webhook) == after["ca.crt"]


def test_what_others_wrote_over_is_written_again(webhook: Webhook, judged: str, raw: Client, api: Api) -> None:
    """An upgrade that wipes the authorities, and a Secret that somebody deletes: soon jobs are judged again."""
    webhook.register(PORTS[0])
    wipe = [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]
    api.patch(CONFIGURATIONS, webhook.name, None, wipe, kind="json")
    until(lambda: raw.create(judged, job_of("job", **BROKEN), "?dryRun=All").by_webhook, "a judgement")

    api.delete(SECRETS, webhook.name, webhook.namespace)
    until(lambda: trusted(api, webhook) == held_or_none(api, webhook), "a new Secret")
    until(lambda: raw.create(judged, job_of("job", **BROKEN), "?dryRun=All").by_webhook, "a judgement")


def held_or_none(api: Api, webhook: Webhook) -> bytes | None:
    secrets = api.list(SECRETS, webhook.namespace)["items"]
    found = [secret["data"]["ca.crt"] for secret in secrets if secret["metadata"]["name"] == webhook.name]
    return base64.b64decode(found[0]) if found else None


def test_without_the_webhook_jobs_are_stored(webhook: Webhook, judged: str, raw: Client) -> None:
    """A dead webhook costs the early answer, and no more: the controller judges what is stored."""
    webhook.register(9699)  # where nobody listens
    until(lambda: raw.create(judged, job_of("job", **BROKEN), "?dryRun=All").status == 201, "a job")
    webhook.register(PORTS[0])
    webhook.judges(judged)


OPERATOR_PORT = 9743


@pytest.fixture
def operator(world: World, namespace: str) -> Iterator[str]:
    """The operator's process as in a cluster: what is installed after it leads to its webhook by a Service."""
    install_crd(world)
    flags = ["--no-leader-election", "--metrics=none", "--progress=none", f"--webhook={NODE_ADDRESS}:{OPERATOR_PORT}"]
    flags += [f"--namespace={namespace}", f"--own-namespace={namespace}", f"--webhook-configuration={namespace}"]
    program = [sys.executable, "-m", "controller.operator", f"--kubeconfig={world.folder / 'kubeconfig.inside'}"]
    path = world.folder / f"operator-{namespace}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(world.inside(*program, *flags), cwd=ROOT, stdout=log, stderr=log)
    until(lambda: "do not know yet whom to trust" in path.read_text(), "that the configuration is missed")
    for body in beside_the_operator(namespace):
        applied = world.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        assert applied.returncode == 0, applied.stderr
    yield namespace
    process.terminate()
    process.wait(60)
    world.kubectl("delete", "validatingwebhookconfiguration", namespace)


def beside_the_operator(namespace: str) -> Iterator[Json]:
    """The webhook's configuration, and a Service that leads to the node, where the process is."""
    known = configuration(namespace, {"service": {"name": "grpo-operator", "namespace": namespace, "path": PATH}})
    here = {"kubernetes.io/metadata.name": namespace}
    known["webhooks"][0]["namespaceSelector"] = {"matchLabels": here}
    meta = {"name": "grpo-operator", "namespace": namespace, "labels": {"kubernetes.io/service-name": "grpo-operator"}}
    ports = [{"name": "https", "port": 443, "targetPort": OPERATOR_PORT}]
    yield known
    yield {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": ports}}
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta,
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS]}],
        "ports": [{"name": "https", "port": OPERATOR_PORT}],
    }


def test_the_operator_serves_its_webhook_behind_a_service(operator: str, raw: Client) -> None:
    """The certificate holds for the Service's name, and the API server, told whom to trust as soon as there is a
    configuration, asks through it.
    """
    until(lambda: raw.create(operator, job_of("job", **BROKEN), "?dryRun=All").by_webhook, "a judgement")
    assert raw.create(operator, job_of("job", **BROKEN)).causes == (BATCH, DEADLINE)
    assert raw.create(operator, job_of("job", suspend=True)).status == 201
