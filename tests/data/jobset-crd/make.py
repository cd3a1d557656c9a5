"""Packs the schemas of this folder out of Go's module cache; README.md says from which versions."""

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
JOBSET = "sigs.k8s.io/jobset@v0.12.0/config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml"
SWAGGER = "k8s.io/kubernetes@v1.36.3/api/openapi-spec/swagger.json"
CONFIG_MAP = "io.k8s.api.core.v1.ConfigMap"


def main() -> None:
    cache = Path(subprocess.check_output(["go", "env", "GOMODCACHE"], text=True).strip())
    definition = yaml.load((cache / JOBSET).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    job_set = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del job_set["properties"]["status"]
    pack("jobset-v0.12.0.schema.json.gz", job_set)

    definitions = json.loads((cache / SWAGGER).read_text(encoding="utf-8"))["definitions"]
    needed, found = [CONFIG_MAP], {}
    while needed:
        name = needed.pop()
        if name not in found:
            found[name] = definitions[name]
            needed += references(definitions[name])
    pack("configmap-v1.36.3.schema.json.gz", {"$ref": f"#/definitions/{CONFIG_MAP}", "definitions": found})


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        for value in schema.values():
            yield from references(value)


def undescribed(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: undescribed(v) for k, v in schema.items() if not (k == "description" and isinstance(v, str))}
    return [undescribed(item) for item in schema] if isinstance(schema, list) else schema


def pack(name: str, schema: dict[str, Any]) -> None:
    text = json.dumps(undescribed(schema), separators=(",", ":"), sort_keys=True) + "\n"
    (HERE / name).write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
