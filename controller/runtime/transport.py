"""How a request reaches the API server: address, TLS, proxy and credentials from a kubeconfig or from the pod.

The one module that knows the official client, and that for what users' environments expect of it: the rules of
KUBECONFIG, tokens that rotate, credential plugins. It knows no resources and reads no answers.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from yaml import YAMLError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVICE_ACCOUNT_TOKEN = SERVICE_ACCOUNT / "token"
CONNECTIONS_KEPT = 64
CONNECT_SECONDS = 5.0


class NoClusterError(Exception):
    """No kubeconfig that can be read, and not in a pod; the message says what was tried."""


def in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and SERVICE_ACCOUNT_TOKEN.is_file()


def load_configuration(kubeconfig: str | None, context: str | None = None) -> Any:
    """The official client's `Configuration` of `kubeconfig`; else of $KUBECONFIG, of the pod, of ~/.kube/config.

    `context` is one of a kubeconfig's, else its current one. Raises `NoClusterError`.
    """
    from kubernetes import config
    from kubernetes.client import Configuration

    configuration = Configuration()
    with _told():
        if _is_of_pod(kubeconfig, context):
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(
                kubeconfig, context=context, client_configuration=configuration, persist_config=False
            )
    configuration.connection_pool_maxsize = CONNECTIONS_KEPT
    configuration.keep_alive = True
    return configuration


def context_of(kubeconfig: str | None, context: str | None) -> tuple[str, str]:
    """The name and the namespace of the context that `load_configuration` takes. Raises `NoClusterError`."""
    from kubernetes import config

    with _told():
        if _is_of_pod(kubeconfig, context):
            return "the pod's service account", (SERVICE_ACCOUNT / "namespace").read_text()
        found, current = config.list_kube_config_contexts(kubeconfig)
    by_name = {one["name"]: one for one in found}
    chosen = by_name.get(context) if context else current
    if chosen is None:
        raise NoClusterError(f"the kubeconfig has no context {context}; it has {', '.join(by_name)}")
    return chosen["name"], (chosen.get("context") or {}).get("namespace") or "default"


def _is_of_pod(kubeconfig: str | None, context: str | None) -> bool:
    return kubeconfig is None and context is None and "KUBECONFIG" not in os.environ and in_pod()


@contextmanager
def _told() -> Iterator[None]:
    from kubernetes.config import ConfigException

    try:
        yield
    except (ConfigException, OSError, ValueError, YAMLError) as error:
        told = " ".join(str(error).split())
        raise NoClusterError(f"no cluster to talk to: {told}; give a kubeconfig, or run in a pod") from error
    except (AttributeError, KeyError, TypeError) as error:
        told = "the kubeconfig is YAML, but no kubeconfig"  # the official client does not look at its shape
        raise NoClusterError(f"no cluster to talk to: {told}; give a kubeconfig, or run in a pod") from error


class Transport:
    """Sends requests of any thread; `load` is called again when the server no longer knows the credentials."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self.renew()

    def renew(self) -> None:
        """Read address and credentials afresh: a token that has rotated, whatever the wall clock says of its age."""
        from kubernetes.client.rest import RESTClientObject

        configuration = self._load()
        pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
        with self._lock:
            self._configuration, self._pool = configuration, pool

    @property
    def server(self) -> str:
        with self._lock:
            return str(self._configuration.host)

    def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, timeout: float
    ) -> urllib3.BaseHTTPResponse:
        """The answer, its body not read yet; `target` is path and query. Raises urllib3's HTTPError.

        `timeout` in seconds bounds the wait for an answer, and each wait for more of it. Nothing is sent twice: who
        asked knows what may be repeated.
        """
        with self._lock:
            pool, url = self._pool, self._configuration.host + target
            credentials = {
                setting["key"]: setting["value"]
                for setting in self._configuration.auth_settings().values()
                if setting["in"] == "header" and setting["value"]
            }
        return pool.request(
            method,
            url,
            headers={**headers, **credentials},
            body=body,
            timeout=urllib3.Timeout(total=timeout, connect=CONNECT_SECONDS),
            retries=False,
            redirect=False,
            preload_content=False,
        )

    def close(self) -> None:
        with self._lock:
            self._pool.clear()
