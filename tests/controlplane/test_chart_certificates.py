"""The chart with certificates of cert-manager, whose part the test plays: kinds, Secret and injected caBundle."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import yaml

from controller.https.certificates import LIFETIME, Certificate, issue
from tests.controlplane.admission import Client, job_of
from tests.controlplane.looking import until
from tests.controlplane.releases import Release, forget_definition
from tests.controlplane.world import World

KINDS = {"certificates": "Certificate", "issuers": "Issuer"}
SETTINGS = {"replicas": 1, "webhook__certificates__source": "CertManager"}


def definition(plural: str, kind: str) -> dict[str, object]:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    spec = {"group": "cert-manager.io", "scope": "Namespaced", "names": {"plural": plural, "kind": kind}}
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**head, "metadata": {"name": f"{plural}.cert-manager.io"}, "spec": {**spec, "versions": [version]}}


@pytest.fixture
def release(world: World, namespace: str) -> Iterator[Release]:
    """Not installed yet; the test's namespace is the operator's too."""
    forget_definition(world)
    text = yaml.safe_dump_all(definition(*one) for one in KINDS.items())
    assert world.kubectl("apply", "-f", "-", stdin=text).returncode == 0
    for plural in KINDS:
        until(lambda kind=plural: world.kubectl("get", f"{kind}.cert-manager.io").returncode == 0, plural)
    release = Release(world, "grpo", namespace)
    yield release
    release.uninstall()
    forget_definition(world)
    world.kubectl("delete", "crd", *(f"{plural}.cert-manager.io" for plural in KINDS))


def put(release: Release, certificate: Certificate) -> None:
    """As cert-manager keeps it."""
    parts = {"tls.crt": certificate.chain, "tls.key": certificate.key, "ca.crt": certificate.authorities}
    data = {name: base64.b64encode(part).decode() for name, part in parts.items()}
    head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "grpo-operator-tls"}}
    applied = release.kubectl("apply", "-f", "-", stdin=json.dumps({**head, "type": "kubernetes.io/tls", "data": data}))
    assert applied.returncode == 0, applied.stderr


def inject(release: Release, certificate: Certificate) -> None:
    bundle = base64.b64encode(certificate.authorities).decode()
    change = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
    name = f"grpo-operator.{release.namespace}"
    patch = ("patch", "validatingwebhookconfiguration", name, "--type=json", f"--patch={json.dumps(change)}")
    assert release.world.kubectl(*patch).returncode == 0


def test_a_certificate_that_has_ended_is_told_and_a_new_one_serves(release: Release) -> None:
    """The pods are not ready, and their log says since when. With a new one the webhook judges; no right to Secrets is
    needed.
    """
    hosts = [f"grpo-operator{part}.{release.namespace}.svc" for part in ("", "-progress")]
    put(release, issue(hosts, datetime.now(UTC) - 2 * LIFETIME))
    assert release.install("--wait", "--timeout=10s", **SETTINGS).returncode != 0
    until(lambda: "the certificate of port 9443 ended at" in release.log(), "the sentence")

    fresh = issue(hosts, datetime.now(UTC))
    put(release, fresh)
    release.kubectl("rollout", "restart", "deployment/grpo-operator")
    done = release.upgrade("--wait", **SETTINGS)
    assert done.returncode == 0, done.stderr
    inject(release, fresh)
    raw, broken = Client(release.world), job_of("broken", rollout={"batchSize": 100})
    until(lambda: raw.create(release.namespace, broken, "?dryRun=All").by_webhook, "a refusal by the webhook")
    raw.close()
    rules = json.loads(release.kubectl("get", "role", "grpo-operator", "-o", "json").stdout)["rules"]
    assert "secrets" not in {name for rule in rules for name in rule["resources"]}
