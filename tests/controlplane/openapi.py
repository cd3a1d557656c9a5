"""The API server's own description of its kinds, as the JSON schemas that kubeconform reads."""

import json
from pathlib import Path
from typing import Any

from tests.controlplane.world import World

EITHER = {"anyOf": [{"type": "string"}, {"type": "number"}]}
LOOSE = ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "io.k8s.apimachinery.pkg.api.resource.Quantity")
Json = dict[str, Any]


def write_schemas(world: World, folder: Path) -> str:
    """One file for each kind; what it is found by. Keys that a kind does not have are refused."""
    described = json.loads(world.kubectl("get", "--raw", "/openapi/v2").stdout)
    definitions = {name: _strict(name, one) for name, one in described["definitions"].items()}
    (folder / "_definitions.json").write_text(json.dumps({"definitions": definitions}))
    for name, one in described["definitions"].items():
        for kind in one.get("x-kubernetes-group-version-kind", ()):
            parts = [kind["kind"].lower(), kind["group"].partition(".")[0], kind["version"]]
            reference = {"$ref": f"_definitions.json#/definitions/{name}"}
            (folder / f"{'-'.join(part for part in parts if part)}.json").write_text(json.dumps(reference))
    return f"{folder}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"


def _strict(name: str, schema: Json) -> Json:
    if name in LOOSE:
        return EITHER
    return schema | ({"additionalProperties": False} if "properties" in schema else {})
