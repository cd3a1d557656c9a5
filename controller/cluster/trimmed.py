"""What of each object is kept in memory: a thousand jobs must fit beside an interpreter.

In: an object as the API server sends it. Out: the same object with what no decision reads left out. It decides nothing.
"""

from collections.abc import Mapping
from typing import Any

from controller import podspec

Json = dict[str, Any]
_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
)
OPEN = "x-kubernetes-preserve-unknown-fields"


def job(body: Json) -> Json:
    """All but who wrote which field: the rules judge metadata too."""
    return body | {"metadata": {key: value for key, value in body["metadata"].items() if key != "managedFields"}}


def config_map(body: Json) -> Json:
    """That it is there, and whose it is: what it holds is read when it is needed."""
    return _head(body)


def pod(body: Json) -> Json:
    return _head(body) | {"status": body.get("status", {})}


def workload(body: Json) -> Json:
    return _head(body) | {"status": {"conditions": body.get("status", {}).get("conditions") or []}}


def job_set(body: Json) -> Json:
    """Its numbers, whether it is held, and the ConfigMap that its pods mount."""
    spec = body.get("spec", {})
    kept: Json = {"suspend": spec.get("suspend", False)}
    kept["replicatedJobs"] = [_replicated(one) for one in spec.get("replicatedJobs") or ()]
    return _head(body) | {"spec": kept, "status": body.get("status", {})}


def schema(body: Any) -> Any:
    """A schema's shape alone: which fields there are."""
    if not isinstance(body, Mapping):
        return body
    kept: Json = {OPEN: True} if body.get(OPEN) else {}
    if "properties" in body:
        kept["properties"] = {name: schema(below) for name, below in body["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in body:
            kept[key] = schema(body[key])
    return kept


def _head(body: Json) -> Json:
    return {key: body[key] for key in ("apiVersion", "kind") if key in body} | {"metadata": _metadata(body)}


def _metadata(body: Json) -> Json:
    return {key: body["metadata"][key] for key in _METADATA if key in body["metadata"]}


def _replicated(body: Json) -> Json:
    spec = body["template"]["spec"]
    volumes = spec["template"]["spec"].get("volumes") or ()
    ours = [volume for volume in volumes if volume["name"] == podspec.RUN_CONFIG_VOLUME]
    pods = {"template": {"spec": {"volumes": ours}}}
    template = {"spec": {"parallelism": spec.get("parallelism", 1), **pods}}
    return {"name": body["name"], "replicas": body.get("replicas", 1), "template": template}
