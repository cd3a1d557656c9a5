"""The CustomResourceDefinition of GRPOJob, from the types that read a job.

In: the types. Out: the definition as plain data. It refuses to know what values mean together: of that the API server
is told only what no webhook can say as well, immutability and one-ofs.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any

from controller import names
from controller.clusterrules import BOTH_DEVICES, BOTH_SOURCES, NO_DEVICES, NO_SOURCE
from controller.grpojob import ClusterSpec
from controller.statustypes import GRPOJobStatus
from trainer.contract.reading import schema_paths
from trainer.contract.runner import RunnerConfig
from trainer.contract.violations import to_camel

Schema = dict[str, Any]

PLURAL, SINGULAR, SHORT = "grpojobs", "grpojob", "grpo"
COLUMNS = (
    ("Phase", "string", ".status.phase", "where the job stands"),
    ("TPU", "string", ".status.devices", "slices and their topology, or CPU hosts and their devices"),
    ("Step", "string", ".status.progress.display", "training steps done, of all"),
    ("Reward", "number", ".status.progress.rewardMean", "mean reward of the last step"),
    ("Restarts", "integer", ".status.attempts.restarts", "failures of the run's own"),
    ("ETA", "string", ".status.progress.eta", "what is left, as the trainer reckons"),
    ("Age", "date", ".metadata.creationTimestamp", "since the job was made"),
)
MUTABLE = ("suspend", "queue")
MUTABLE_LIFECYCLE = ("activeDeadlineSeconds", "startupDeadlineSeconds", "ttlSecondsAfterFinished")
FIXED = "stays as it was when the job was made; make another job to change it"
GIVEN_COUNTS = ("rewards", "weight")
"""Whether the user wrote these is a part of what they say, so the server must not fill them in."""
KEPT = ("type", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "maxItems", "minItems", "required")
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition, apiextensions.k8s.io/v1.

    https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
    """
    version = names.API_VERSION.partition("/")[2]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{names.API_GROUP}"},
        "spec": {
            "group": names.API_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": [SHORT],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "description": text}
                        for name, kind, path, text in COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": _object_schema()},
                }
            ],
        },
    }


def _object_schema() -> Schema:
    runner, cluster = (_flat(model.model_json_schema(by_alias=True)) for model in (RunnerConfig, ClusterSpec))
    spec = runner | {"properties": runner["properties"] | cluster["properties"]}
    spec["description"] = "The runner's tree in camelCase, and where it runs."
    _fix(spec, {*MUTABLE, *(f"lifecycle.{key}" for key in MUTABLE_LIFECYCLE)})
    spec["x-kubernetes-validations"] += _spec_rules()
    spec["properties"]["code"]["x-kubernetes-validations"] += _code_rules()
    status = _flat(GRPOJobStatus.model_json_schema(by_alias=True), nulls=False)
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return {
        "type": "object",
        "description": "One GRPO training run of a language model on TPU slices.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }


def _fix(section: Schema, mutable: Collection[str], at: str = "") -> None:
    """Transition rules, key by key, so that the path of the key is told and a null equals a key left out.

    Each write of a status evaluates them all. A key with a default is always there and has its own rule; what may come
    and go is its section's to compare, and there each look at a key costs more, the more keys the section has.
    """
    rules = []
    for key, value in section["properties"].items():
        path = f"{at}{key}"
        if path in mutable:
            continue
        if "properties" in value:
            _fix(value, mutable, f"{path}.")
        elif "default" in value:
            value["x-kubernetes-validations"] = [_fixed("self == oldSelf")]
        if "default" not in value:
            same = f"has(self.{key}) == has(oldSelf.{key})"
            if "properties" not in value:
                same += f" && (!has(self.{key}) || self.{key} == oldSelf.{key})"
            rules.append(_fixed(same) | {"fieldPath": f".{key}"})
    section["x-kubernetes-validations"] = rules


def _fixed(rule: str) -> Schema:
    return {"rule": rule, "message": FIXED, "reason": "FieldValueForbidden"}


def _spec_rules() -> Iterator[Schema]:
    """What holds between the keys of `spec`."""
    yield {"rule": "has(self.tpu) || has(self.cpu)", "message": NO_DEVICES}
    yield {"rule": "!has(self.tpu) || !has(self.cpu)", "message": BOTH_DEVICES, "fieldPath": ".cpu"}
    yield {
        "rule": "oldSelf.suspend || has(self.queue) == has(oldSelf.queue) && "
        "(!has(self.queue) || self.queue == oldSelf.queue)",
        "message": "may be changed while the job is suspended only; set suspend: true first",
        "fieldPath": ".queue",
        "reason": "FieldValueForbidden",
    }


def _code_rules() -> Iterator[Schema]:
    yield {"rule": "has(self.configMap) || has(self.uri)", "message": NO_SOURCE}
    yield {"rule": "!has(self.configMap) || !has(self.uri)", "message": BOTH_SOURCES}


def _flat(schema: Schema, nulls: bool = True) -> Schema:
    """A structural schema without references; with `nulls`, null may stand where a key may be left out.

    The API server fills in defaults for nulls. What has none is nullable: server-side apply refuses it otherwise.
    https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
    """
    definitions = schema.get("$defs", {})

    def flat(node: Schema, key: str = "") -> Schema:
        node = dict(node)
        while "$ref" in node:
            node = definitions[node.pop("$ref").rpartition("/")[2]] | node
        if "anyOf" in node:
            (inner,) = (part for part in node.pop("anyOf") if part != {"type": "null"})
            return flat(inner | node, key)
        found = {name: node[name] for name in KEPT if name in node}
        found |= {"description": _in_camel_case(node["description"])} if "description" in node else {}
        found |= _limits(node) | _default(node, key)
        if "properties" in node:
            needed = node.get("required", ())
            parts = {name: flat(part, name) for name, part in node["properties"].items()}
            optional = {name for name, part in parts.items() if nulls and not (name in needed or "default" in part)}
            found["properties"] = {name: _nullable(part) if name in optional else part for name, part in parts.items()}
        elif node.get("type") == "object":
            found |= _map(node, flat)
        if "items" in node:
            found |= {"items": flat(node["items"]), "x-kubernetes-list-type": "atomic"}
        return found

    return flat(schema)


def _nullable(node: Schema) -> Schema:
    """The API server's check of an enum knows no null, also where null is one of its words; that of a pattern does."""
    if "enum" not in node:
        return node | {"nullable": True}
    words = [str(word) for word in node["enum"]]
    pattern = f"^({'|'.join(map(re.escape, words))})$"
    rest = {name: value for name, value in node.items() if name != "enum"}
    return rest | {"pattern": pattern, "maxLength": max(map(len, words)), "nullable": True}


def _in_camel_case(text: str) -> str:
    """A description with the keys that it speaks of as a GRPOJob spells them."""
    keys = {path.rpartition(".")[2] for model in (RunnerConfig, ClusterSpec) for path in schema_paths(model)}
    return re.sub(r"[a-z]+(_[a-z]+)+", lambda word: to_camel(word[0]) if word[0] in keys else word[0], text)


def _limits(node: Schema) -> Schema:
    found: Schema = {"enum": [node["const"]]} if "const" in node else {}
    for exclusive, bound in _EXCLUSIVE.items():
        if exclusive in node:
            found |= {bound: node[exclusive], exclusive: True}
    return found | ({"format": "int64"} if node.get("type") == "integer" else {})


def _default(node: Schema, key: str) -> Schema:
    """What the server fills in. A section is filled in empty, and its own keys say what they are."""
    if node.get("default") is None or key in GIVEN_COUNTS:
        return {}
    return {"default": {} if "properties" in node else node["default"]}


def _map(node: Schema, flat: Any) -> Schema:
    """A map of text to values; what its keys must look like is the webhook's to say: a schema cannot.

    Where values are of any kind, null is one: it stays.
    """
    patterns = node.get("patternProperties", {})
    values = flat(next(iter(patterns.values())) if patterns else node["additionalProperties"])
    found: Schema = {"maxProperties": node["maxProperties"]}
    if not values:
        return found | {"x-kubernetes-preserve-unknown-fields": True}
    return found | {"additionalProperties": _nullable(values)}
