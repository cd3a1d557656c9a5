"""How pods reach the endpoint and know it: the leader's address behind a Service, and whom to trust, in each namespace.

In: a client of the API server. Out: an EndpointSlice that the leader writes, for a Service without a selector, and a
ConfigMap in each namespace where jobs run, which a kubelet keeps fresh in their pods. Nothing is written that is there.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controller import names
from controller.runtime.client import Api, ApiError, Resource
from trainer.contract.report import CA_FILE

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
MANAGER = "grpo-operator"
PORT_NAME = "progress"
"""Of the Service's port too: by it a Service finds the port of a slice."""


class Trust:
    """`authorities` gives the PEM that verifies the endpoint now; a namespace that has it is not written again."""

    def __init__(self, api: Api, authorities: Callable[[], bytes]) -> None:
        self._api, self._authorities = api, authorities
        self._there: dict[str, str] = {}
        self._lock = threading.Lock()

    def reach(self, namespace: str) -> None:
        """Before a job's pods run there, and now and then while they do. Raises ApiError."""
        wanted = self._authorities().decode()
        with self._lock:
            if self._there.get(namespace) == wanted:
                return
        if self._found(namespace) != wanted:
            body = {
                "apiVersion": CONFIG_MAPS.api_version,
                "kind": CONFIG_MAPS.kind,
                "metadata": {"name": names.AUTHORITY_CONFIG_MAP, "namespace": namespace},
                "data": {CA_FILE: wanted},
            }
            self._api.apply(CONFIG_MAPS, body, namespace, MANAGER, force=True)
        with self._lock:
            self._there[namespace] = wanted

    def _found(self, namespace: str) -> str | None:
        try:
            data = self._api.get(CONFIG_MAPS, names.AUTHORITY_CONFIG_MAP, namespace).get("data") or {}
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        return str(data.get(CA_FILE))


@dataclass(frozen=True, slots=True)
class Lead:
    """The Service `service` in `namespace` leads to whoever leads: `address` and `port` are this replica's."""

    api: Api
    namespace: str
    service: str
    address: str
    port: int

    def take(self) -> None:
        """From now on. Raises ApiError. A leader that died is found there until the next one has taken over."""
        self.api.apply(ENDPOINT_SLICES, self.slice(), self.namespace, MANAGER, force=True)

    def slice(self) -> dict[str, Any]:
        managed = {"kubernetes.io/service-name": self.service, "endpointslice.kubernetes.io/managed-by": MANAGER}
        return {
            "apiVersion": ENDPOINT_SLICES.api_version,
            "kind": ENDPOINT_SLICES.kind,
            # An address type cannot be changed, so the other family has a slice of its own name.
            "metadata": {"name": f"{self.service}-{self._family.lower()}", "labels": managed},
            "addressType": self._family,
            "endpoints": [{"addresses": [self.address], "conditions": {"ready": True}}],
            "ports": [{"name": PORT_NAME, "port": self.port, "protocol": "TCP"}],
        }

    @property
    def _family(self) -> str:
        return "IPv6" if ":" in self.address else "IPv4"
