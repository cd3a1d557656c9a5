"""The API server as a few methods on plain JSON: what goes in and comes out are dicts.

Every call goes through `Api.request`, has a time-out, is sent once, and either returns or raises `ApiError`. It keeps
no state and repeats no call: that is for whoever asked (a key that is queued again, a reflector that lists again).
"""

import json
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import quote, urlencode

import urllib3

from controller.runtime.answers import ApiError as ApiError
from controller.runtime.answers import read, unanswered
from controller.runtime.clock import ServerClock
from controller.runtime.streams import STALL_SECONDS as STALL_SECONDS
from controller.runtime.streams import Lines
from controller.runtime.streams import Watch as Watch
from controller.runtime.transport import Transport, load_configuration

Json = dict[str, Any]
Propagation = Literal["Foreground", "Background", "Orphan"]
PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
CALL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Resource:
    """What the API server calls a kind: `Resource("batch", "v1", "jobs", "Job")`; the core group is ""."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        parts += ["namespaces", namespace] if namespace and self.namespaced else []
        parts += [self.plural, *(part for part in (name, subresource) if part)]
        return "/" + "/".join(quote(part, safe="") for part in parts)


class Api:
    """The API server, for any thread. `observe(method, status)` hears of each answer; status 0 is none.

    `clock` tells its time.
    """

    def __init__(
        self, transport: Transport, user_agent: str, observe: Callable[[str, int], None] = lambda method, status: None
    ) -> None:
        self._transport, self._user_agent, self._observe = transport, user_agent, observe
        self._seconds = CALL_SECONDS
        self.clock = ServerClock()

    def within(self, seconds: float) -> "Api":
        """The same server, for calls that are of no use after `seconds`."""
        hasty = copy(self)
        hasty._seconds = seconds
        return hasty

    @classmethod
    def connect(
        cls,
        kubeconfig: str | None,
        user_agent: str,
        observe: Callable[[str, int], None] = lambda method, status: None,
        context: str | None = None,
    ) -> "Api":
        """With `kubeconfig`; else $KUBECONFIG, the pod's service account, ~/.kube/config. Raises `NoClusterError`."""
        return cls(Transport(lambda: load_configuration(kubeconfig, context)), user_agent, observe)

    @property
    def server(self) -> str:
        """Its address."""
        return self._transport.server

    def close(self) -> None:
        self._transport.close()

    # --- reading

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Json:
        return self._json("GET", resource.path(namespace, name))

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        resume: str | None = None,
    ) -> Json:
        """One page, as the server sends it; the next is asked for with `resume = metadata.continue`.

        Each item says its kind, which the server leaves out.
        """
        query = {"labelSelector": label_selector, "fieldSelector": field_selector, "limit": limit, "continue": resume}
        found = self._json("GET", resource.path(namespace), query)
        for item in found["items"]:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return found

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        seconds: int | None = None,
        stall_seconds: float = STALL_SECONDS,
    ) -> "Watch":
        """Changes since `resource_version`, bookmarks among them, until the server ends it after `seconds`."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "timeoutSeconds": seconds,
        }
        return Watch(Lines(lambda: self.request("GET", resource.path(namespace), query, stream=True), stall_seconds))

    def lines(self, path: str, query: Mapping[str, Any]) -> Lines:
        """An answer that is text, such as a pod's log, line by line as it comes."""
        return Lines(lambda: self.request("GET", path, query, stream=True))

    # --- writing

    def create(
        self,
        resource: Resource,
        body: Json,
        namespace: str | None = None,
        dry_run: bool = False,
        manager: str | None = None,
    ) -> Json:
        return self._json("POST", resource.path(namespace), _writing(manager, dry_run), body)

    def apply(
        self,
        resource: Resource,
        body: Json,
        namespace: str | None = None,
        manager: str = "",
        force: bool = False,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Server-side apply of what `manager` owns of the object; what it no longer names, it gives up."""
        query = {**_writing(manager, dry_run), "force": "true" if force else None}
        path = resource.path(namespace, body["metadata"]["name"], subresource)
        return self._json("PATCH", path, query, body, PATCH_TYPES["apply"])

    def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        body: Any,
        kind: str = "merge",
        subresource: str | None = None,
        manager: str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """`kind` is one of `merge`, `json`, `strategic`; a `metadata.resourceVersion` in `body` must be the newest."""
        path = resource.path(namespace, name, subresource)
        return self._json("PATCH", path, _writing(manager, dry_run), body, PATCH_TYPES[kind])

    def replace(
        self,
        resource: Resource,
        body: Json,
        namespace: str | None = None,
        subresource: str | None = None,
        manager: str | None = None,
    ) -> Json:
        path = resource.path(namespace, body["metadata"]["name"], subresource)
        return self._json("PUT", path, _writing(manager, dry_run=False), body)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        propagation: Propagation = "Foreground",
        uid: str | None = None,
    ) -> Json:
        """With `uid`, only that very object: a conflict where another one has its name by now."""
        body: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        return self._json("DELETE", resource.path(namespace, name), body=body)

    def post(self, path: str, body: Json) -> Json:
        """For what is asked by writing: a TokenReview, an eviction."""
        return self._json("POST", path, body=body)

    # --- the one way out

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        stream: bool = False,
    ) -> Any:
        """The answer as JSON; with `stream`, the open response. Raises `ApiError`.

        Credentials that the server refuses (401) are read afresh, once.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        headers = {"Accept": "application/json", "User-Agent": self._user_agent, "Content-Type": content_type}
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            response = self._transport.send(method, target, headers, data, self._seconds)
            if response.status == 401:
                response.release_conn()
                self._transport.renew()
                response = self._transport.send(method, target, headers, data, self._seconds)
            content = None if stream and response.status == 200 else response.data
        except urllib3.exceptions.HTTPError as error:
            self._observe(method, 0)
            raise unanswered(error, f"{method} {path}") from error
        self._observe(method, response.status)
        self.clock.hear(response.headers.get("Date"))
        if content is None:
            return response
        return read(response.status, response.headers.get("Retry-After"), content, f"{method} {path}")

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Json:
        return cast("Json", self.request(method, path, query, body, content_type))


def _writing(manager: str | None, dry_run: bool) -> Json:
    return {"fieldManager": manager, "dryRun": "All" if dry_run else None}
