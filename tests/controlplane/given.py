"""What a pod is given before it starts: its environment, and its volumes as folders of this machine."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kubernetes import client
from urllib3.exceptions import HTTPError

NODE = "test-node"

Body = dict[str, Any]


class Given:
    """One pod's fields, keys and tokens. `shared` is where network disks lie that several pods see.

    What does not exist raises ApiException or KeyError, and may exist later.
    """

    def __init__(self, core: client.CoreV1Api, pod: Body, address: str, folder: Path, shared: Path) -> None:
        self._core, self._pod, self._address = core, pod, address
        self._volumes, self._shared = folder / "volumes", shared
        self._container: Body = pod["spec"]["containers"][0]

    # --- environment

    def environment(self) -> dict[str, str]:
        known: dict[str, str] = {}
        for source in self._container.get("envFrom", ()):
            known |= self._all_keys(source)
        for variable in self._container.get("env", ()):
            value = variable.get("value", "")
            if "valueFrom" in variable:
                value = self._value(variable["valueFrom"])
            known[variable["name"]] = expanded(value, known)
        return known

    def _value(self, source: Body) -> str:
        if "fieldRef" in source:
            return self._field(source["fieldRef"]["fieldPath"])
        kind, reference = next(iter(source.items()))
        return self._keys(kind, reference["name"])[reference["key"]].decode()

    def _field(self, path: str) -> str:
        keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
        meta = self._pod["metadata"]
        if keyed:
            return str(meta.get(keyed[1], {}).get(keyed[2], ""))
        known = {"metadata.name": meta["name"], "metadata.namespace": meta["namespace"], "metadata.uid": meta["uid"]}
        known |= {"status.podIP": self._address, "spec.nodeName": NODE}
        known |= {"spec.serviceAccountName": self._pod["spec"].get("serviceAccountName", "default")}
        return str(known[path])

    def _all_keys(self, source: Body) -> dict[str, str]:
        prefix = source.get("prefix", "")
        kind, reference = next((kind, source[kind]) for kind in ("configMapRef", "secretRef") if kind in source)
        return {prefix + key: value.decode() for key, value in self._keys(kind, reference["name"]).items()}

    def _keys(self, kind: str, name: str) -> dict[str, bytes]:
        """The keys of a ConfigMap or Secret, whichever kind of reference names it."""
        namespace = self._pod["metadata"]["namespace"]
        if kind.startswith("secret"):
            data = self._core.read_namespaced_secret(name, namespace).data or {}
            return {key: base64.b64decode(value) for key, value in data.items()}
        found = self._core.read_namespaced_config_map(name, namespace)
        binary = {key: base64.b64decode(value) for key, value in (found.binary_data or {}).items()}
        return {key: value.encode() for key, value in (found.data or {}).items()} | binary

    # --- volumes

    def fill(self, volume: Body) -> None:
        target = self._volumes / volume["name"]
        if "nfs" in volume:
            disk = self._shared / volume["nfs"]["path"].strip("/")
            disk.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(disk)
            return
        target.mkdir(parents=True, exist_ok=True)
        for kind in ("configMap", "secret"):
            if kind in volume:
                name = volume[kind].get("name") or volume[kind]["secretName"]
                self._write(target, self._keys(kind, name), volume[kind].get("items"))
        for source in volume.get("projected", {}).get("sources", ()):
            self._project(source, target)

    def _project(self, source: Body, target: Path) -> None:
        if "serviceAccountToken" in source:
            asked = source["serviceAccountToken"]
            (target / asked["path"]).write_text(self._token(asked))
        elif "downwardAPI" in source:
            for item in source["downwardAPI"]["items"]:
                (target / item["path"]).write_text(self._field(item["fieldRef"]["fieldPath"]))
        else:
            kind, reference = next(iter(source.items()))
            self._write(target, self._keys(kind, reference["name"]), reference.get("items"))

    def _token(self, asked: Body) -> str:
        """Bound to this pod, as a kubelet asks for it. The account is there when a pod is: admission has seen to it."""
        meta = self._pod["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        spec = {"boundObjectRef": bound, "expirationSeconds": asked.get("expirationSeconds", 3600)}
        spec |= {"audiences": [asked["audience"]] if "audience" in asked else []}
        account = self._pod["spec"].get("serviceAccountName", "default")
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        made = self._core.create_namespaced_service_account_token(account, meta["namespace"], body)
        return str(made.status.token)

    def _write(self, target: Path, keys: dict[str, bytes], items: list[Body] | None) -> None:
        wanted = {item["key"]: item["path"] for item in items} if items else {key: key for key in keys}
        for key, path in wanted.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(keys[key])

    def mounts(self) -> Iterator[tuple[str, str, bool]]:
        for mount in self._container.get("volumeMounts", ()):
            source = (self._volumes / mount["name"]).resolve() / mount.get("subPath", "")
            target = mount["mountPath"].replace("/var/run/", "/run/", 1)
            yield str(source), target, mount.get("readOnly", False)


def expanded(text: str, known: dict[str, str]) -> str:
    """`$(NAME)` as Kubernetes replaces it: a name that is not known stays as it is."""
    return re.sub(r"\$\(([^)]+)\)", lambda name: known.get(name[1], name[0]), text)


def why_missing(get: Callable[[], object]) -> str | None:
    """Why something cannot be had yet, in the words of the API server; None where it was had."""
    try:
        get()
    except client.ApiException as error:
        return str(json.loads(error.body)["message"]) if error.body else str(error.reason)
    except KeyError as error:
        return f"key {error} is not there"
    except HTTPError as error:
        return str(error)
    return None
