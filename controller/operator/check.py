"""What `helm test` runs in the cluster: whether an installation works, a line for each part, and what mends it.

In: the API server, asked as a user asks it, and the webhook's Service. Out: lines on stdout, exit 1 where a part does
not work. Nothing is stored: jobs are created as a dry run.
"""

import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import click
from cryptography import x509

from controller import names
from controller.cluster.resources import GRPOJOBS, JOB_SETS
from controller.runtime.client import Api, ApiError
from controller.runtime.election import LEASES
from controller.runtime.transport import NoClusterError

LEASE_SECONDS = 60
CONNECT_SECONDS = 5
Body = dict[str, Any]


class BrokenError(Exception):
    """A part does not work; the message says what to do."""


@click.command()
@click.option("--namespace", required=True, help="Of jobs that the operator looks after.")
@click.option("--own-namespace", required=True, help="Of the operator.")
@click.option("--lease", default="grpo-operator", show_default=True)
@click.option("--webhook-service", default="grpo-operator", show_default=True, help="Empty: there is no webhook.")
@click.option("--kubeconfig", help="By default the pod's service account.")
def main(namespace: str, own_namespace: str, lease: str, webhook_service: str, kubeconfig: str | None) -> None:
    """Check an installation of the operator from inside the cluster."""
    try:
        api = Api.connect(kubeconfig, "grpo-operator-check")
    except NoClusterError as error:
        sys.exit(f"check: {error}")
    parts: list[tuple[str, Callable[[], str]]] = [
        ("definition", lambda: definition(api)),
        ("JobSet", lambda: job_set(api)),
        ("leader", lambda: leader(api, own_namespace, lease)),
        ("a good job", lambda: good_job(api, namespace)),
    ]
    if webhook_service:
        parts.append(("a broken job", lambda: broken_job(api, namespace, f"{webhook_service}.{own_namespace}.svc")))
    lines = list(told(parts))
    sys.exit(0 if all(lines) else 1)


def told(parts: list[tuple[str, Callable[[], str]]]) -> Iterator[bool]:
    """Prints each part's line; whether it works."""
    for name, look in parts:
        try:
            click.echo(f"ok      {name}: {look()}")
            yield True
        except (BrokenError, ApiError) as error:
            click.echo(f"BROKEN  {name}: {error}")
            yield False


def definition(api: Api) -> str:
    if not _served(api, names.API_VERSION):
        raise BrokenError(f"the API server has no {names.KIND}; install the chart with crds.install=true")
    return f"{names.API_VERSION} is served"


def job_set(api: Api) -> str:
    if not _served(api, JOB_SETS.api_version):
        raise BrokenError(
            f"the API server has no {JOB_SETS.api_version}; install JobSet, until then jobs wait: "
            "https://jobset.sigs.k8s.io/docs/installation"
        )
    return f"{JOB_SETS.api_version} is served"


def _served(api: Api, api_version: str) -> bool:
    try:
        api.request("GET", f"/apis/{api_version}")
    except ApiError as error:
        if error.is_not_found:
            return False
        raise
    return True


def leader(api: Api, namespace: str, lease: str) -> str:
    """The moments in the Lease are the leader's clock's: only one that is long past says something."""
    look = f"look at its pods: kubectl -n {namespace} logs -l app.kubernetes.io/component=operator"
    try:
        spec = api.get(LEASES, lease, namespace)["spec"]
    except ApiError as error:
        if error.is_not_found:
            raise BrokenError(f"no operator has ever led; {look}") from error
        raise
    if not spec.get("holderIdentity"):
        raise BrokenError(f"no operator leads; {look}")
    age = (datetime.now(UTC) - datetime.fromisoformat(spec["renewTime"])).total_seconds()
    if age > LEASE_SECONDS:
        raise BrokenError(f"{spec['holderIdentity']} led, and was last heard of {age:.0f} s ago; {look}")
    return str(spec["holderIdentity"])


def good_job(api: Api, namespace: str) -> str:
    _dry_run(api, namespace, {"batchSize": 96})
    return "accepted, as a dry run"


def broken_job(api: Api, namespace: str, host: str) -> str:
    """It is refused by the webhook alone: the schema finds nothing wrong with it."""
    try:
        _dry_run(api, namespace, {"batchSize": 100})
    except ApiError as error:
        if "batchSize" in error.message:
            return "refused by the webhook, in the words of grpoctl validate"
        raise BrokenError(f"the webhook did not judge: {error.message}; {why_unjudged(host)}") from error
    raise BrokenError(f"it was accepted, so the webhook did not judge; {why_unjudged(host)}")


def _dry_run(api: Api, namespace: str, rollout: Body) -> None:
    spec = {"modelPath": "/model", "cpu": {"hosts": 1}, "rollout": rollout}
    body = {"apiVersion": GRPOJOBS.api_version, "kind": GRPOJOBS.kind, "metadata": {"name": "check"}, "spec": spec}
    api.request("POST", GRPOJOBS.path(namespace), {"dryRun": "All"}, body)


def why_unjudged(host: str, port: int = 443) -> str:
    """What this pod sees of the webhook tells whose fault it is."""
    try:
        certificate = x509.load_der_x509_certificate(_shown(host, port))
    except (OSError, ValueError) as error:
        return (
            f"nobody answers at {host} ({error}): are the operator's pods ready, and does a NetworkPolicy or a mesh "
            "stand before them?"
        )
    if certificate.not_valid_after_utc < datetime.now(UTC):
        return (
            f"its certificate ended at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: delete its Secret, and "
            "the operator makes a new one; with cert-manager look at the Certificate"
        )
    return (
        f"pods reach {host}, so either the API server does not: let the control plane through to the webhook's port of "
        "the nodes (on a private GKE cluster by a firewall rule), or it does not trust it yet: try again in a minute"
    )


def _shown(host: str, port: int) -> bytes:
    """The certificate that is served there, whoever signed it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), CONNECT_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host) as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


if __name__ == "__main__":
    main()
