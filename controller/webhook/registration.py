"""What the API server is told about this webhook: when to ask it, where, and whose signature to trust.

In: a client of the API server. Out: the configuration, and the authorities written into it. It knows no rule.
"""

import base64
import logging
from typing import Any

from controller import crd, names
from controller.runtime.client import Api, Resource

CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False
)
WEBHOOK = f"{crd.PLURAL}.{names.API_GROUP}"
PATH = "/validate"
TIMEOUT_SECONDS = 5

Json = dict[str, Any]

log = logging.getLogger(__name__)


def configuration(name: str, client: Json, failure_policy: str = "Ignore") -> Json:
    """A ValidatingWebhookConfiguration; `client` is its clientConfig, with a `url` or a `service`.

    `Ignore`: without the operator a job is stored and judged when it is back, and nothing else in the cluster waits.
    """
    return {
        "apiVersion": CONFIGURATIONS.api_version,
        "kind": CONFIGURATIONS.kind,
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": WEBHOOK,
                "admissionReviewVersions": ["v1"],
                "clientConfig": client,
                "failurePolicy": failure_policy,
                "sideEffects": "None",
                "timeoutSeconds": TIMEOUT_SECONDS,
                "rules": [
                    {
                        "apiGroups": [names.API_GROUP],
                        "apiVersions": [names.API_VERSION.partition("/")[2]],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [crd.PLURAL],
                        "scope": "Namespaced",
                    }
                ],
                "matchConditions": [
                    {
                        "name": "spec-is-new",
                        "expression": "request.operation == 'CREATE' || object.spec != oldObject.spec",
                    },
                    {"name": "job-stays", "expression": "!has(object.metadata.deletionTimestamp)"},
                ],
            }
        ],
    }


def trust(api: Api, name: str, authorities: bytes) -> bool:
    """Write the authorities into each webhook of a configuration; whether anything had to be written.

    Raises `ApiError`: not found, or a conflict where the configuration changed meanwhile.
    """
    found = api.get(CONFIGURATIONS, name)
    bundle = base64.b64encode(authorities).decode()
    stale = [
        index
        for index, webhook in enumerate(found.get("webhooks") or ())
        if webhook["clientConfig"].get("caBundle") != bundle
    ]
    if not stale:
        return False
    unchanged = {"op": "test", "path": "/metadata/resourceVersion", "value": found["metadata"]["resourceVersion"]}
    writes = [{"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": bundle} for index in stale]
    api.patch(CONFIGURATIONS, name, None, [unchanged, *writes], kind="json")
    log.info("told webhook configuration %s whom to trust", name)
    return True
