"""What a node's proxy does: whoever connects to a Service's address reaches one of its endpoints.

`python -m tests.controlplane.services KUBECONFIG`, in a network of its own beside the pods: the node itself has the API
server on every address. It listens on each port of each Service that has an address of its own, and reads the endpoints
anew for each connection. It knows TCP only, and no policy.
"""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from tests.controlplane.sandbox import INTERFACE, SERVICE_GATEWAY

LOOK_SECONDS = 0.5
OWN_SERVICE = ("default", "kubernetes")


def addressed(core: client.CoreV1Api) -> list[Any]:
    """Services with an address, but for the API server's own."""
    found = core.list_service_for_all_namespaces(_request_timeout=5).items
    return [
        one
        for one in found
        if one.spec.cluster_ip not in (None, "", "None") and (one.metadata.namespace, one.metadata.name) != OWN_SERVICE
    ]


def host_lines(core: client.CoreV1Api) -> str:
    """Their names as lines of a hosts file; none where the API server does not answer."""
    try:
        found = addressed(core)
    except (client.ApiException, HTTPError, OSError):
        return ""
    names = ((one.spec.cluster_ip, f"{one.metadata.name}.{one.metadata.namespace}") for one in found)
    return "".join(f"{address} {name} {name}.svc {name}.svc.cluster.local\n" for address, name in names)


class Proxy:
    """All Services of the cluster."""

    def __init__(self) -> None:
        self._core, self._discovery = client.CoreV1Api(), client.DiscoveryV1Api()
        self._doors: dict[tuple[str, int], socket.socket] = {}

    def look(self) -> None:
        """Open doors for new Services, and shut those of Services that are gone: their addresses are given again."""
        wanted = {
            (one.spec.cluster_ip, port.port): (one.metadata.namespace, one.metadata.name, port.name)
            for one in addressed(self._core)
            for port in one.spec.ports
        }
        for place in self._doors.keys() - wanted.keys():
            self._doors.pop(place).close()
        for place in wanted.keys() - self._doors.keys():
            address = ["ip", "address", "replace", f"{place[0]}/32", "dev", "lo"]
            subprocess.run(address, check=True)
            self._doors[place] = socket.create_server(place)
            threading.Thread(target=self._serve, args=(self._doors[place], *wanted[place]), daemon=True).start()

    def _serve(self, door: socket.socket, namespace: str, service: str, port: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = door.accept()
                threading.Thread(target=self._lead, args=(caller, namespace, service, port), daemon=True).start()

    def _lead(self, caller: socket.socket, namespace: str, service: str, port: str) -> None:
        with caller, contextlib.suppress(client.ApiException, HTTPError, OSError, StopIteration):
            place = next(self._endpoints(namespace, service, port))
            with socket.create_connection(place, timeout=5) as endpoint:
                endpoint.settimeout(None)
                back = threading.Thread(target=_copy, args=(endpoint, caller), daemon=True)
                back.start()
                _copy(caller, endpoint)
                back.join()

    def _endpoints(self, namespace: str, service: str, port: str) -> Any:
        selector = f"kubernetes.io/service-name={service}"
        for found in self._discovery.list_namespaced_endpoint_slice(namespace, label_selector=selector).items:
            numbers = [one.port for one in found.ports or () if (one.name or "") == (port or "")]
            for endpoint in found.endpoints or ():
                if numbers and endpoint.conditions.ready is not False:
                    yield endpoint.addresses[0], numbers[0]


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def join_network() -> None:
    while subprocess.run(["ip", "link", "show", INTERFACE], capture_output=True, check=False).returncode:
        time.sleep(0.01)
    for line in (
        "link set lo up",
        f"address add {SERVICE_GATEWAY}/16 dev {INTERFACE}",
        f"link set {INTERFACE} up",
    ):
        subprocess.run(["ip", *line.split()], check=True)


def main(kubeconfig: str) -> None:
    join_network()
    config.load_kube_config(kubeconfig)
    proxy = Proxy()
    while True:
        with contextlib.suppress(client.ApiException, HTTPError, OSError):
            proxy.look()
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
