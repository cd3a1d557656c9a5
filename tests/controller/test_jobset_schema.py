"""Every golden manifest against JobSet's real CRD schema and Kubernetes' ConfigMap, as the API server would read it."""

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

RENDERED = Path(__file__).parent / "rendered"
SCHEMAS = Path(__file__).parents[1] / "data" / "jobset-crd"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
CASES = sorted(folder.name for folder in RENDERED.iterdir())


def _load(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(gzip.decompress((SCHEMAS / name).read_bytes()))
    return schema


def _strict(schema: Any) -> Any:
    """Kubernetes' structural schema as JSON schema under strict field validation: what is not named is refused."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if "properties" in schema:
        plain.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        plain["type"] = ["integer", "string"]
    return plain


@pytest.fixture(scope="module")
def validators() -> dict[str, jsonschema.Draft202012Validator]:
    config_map, job_set = _load("configmap-v1.36.3.schema.json.gz"), _load("jobset-v0.12.0.schema.json.gz")
    job_set["properties"]["metadata"] = {"$ref": f"#/definitions/{OBJECT_META}"}  # any CRD's: the server checks it
    schemas = {"ConfigMap": config_map, "JobSet": job_set | {"definitions": config_map["definitions"]}}
    strict = {kind: _strict(schema) for kind, schema in schemas.items()}
    for kind, schema in strict.items():
        schema["definitions"] = {name: _strict(value) for name, value in schemas[kind]["definitions"].items()}
    return {kind: jsonschema.Draft202012Validator(schema) for kind, schema in strict.items()}


def _job_set() -> Any:
    text = (RENDERED / "two-slices-spot" / "manifests.yaml").read_text(encoding="utf-8")
    return copy.deepcopy(list(yaml.safe_load_all(text))[1])


@pytest.mark.parametrize("case", CASES)
def test_manifests_are_valid(case: str, validators: dict[str, jsonschema.Draft202012Validator]) -> None:
    """Both documents of every golden case satisfy the schemas, unknown fields refused."""
    documents = list(yaml.safe_load_all((RENDERED / case / "manifests.yaml").read_text(encoding="utf-8")))
    assert [document["kind"] for document in documents] == ["ConfigMap", "JobSet"]
    for document in documents:
        assert [error.message for error in validators[document["kind"]].iter_errors(document)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicatedJobs", 0, "template", "spec", "backofLimit"), 0),
        (("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "nodeSelectors"), {}),
        (("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "containers", 0, "envs"), []),
        (("spec", "replicatedJobs", 0, "template", "metadata", "label"), {}),
        (("metadata", "label"), {}),
        (("spec", "network", "subDomain"), "g-1"),
    ],
)
def test_unknown_fields_are_refused(
    path: tuple[Any, ...], value: Any, validators: dict[str, jsonschema.Draft202012Validator]
) -> None:
    """A misspelt field fails at every depth, from metadata to the container."""
    job_set = _job_set()
    place = job_set
    for key in path[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    place[path[-1]] = value
    (error,) = validators["JobSet"].iter_errors(job_set)
    assert path[-1] in error.message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicatedJobs", 0, "replicas"), "2"),
        (("spec", "failurePolicy", "rules", 0, "action"), "Fail"),
        (("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "containers", 0, "env", 0, "value"), 1),
    ],
)
def test_wrong_types_are_refused(
    path: tuple[Any, ...], value: Any, validators: dict[str, jsonschema.Draft202012Validator]
) -> None:
    """A number as text, an unknown action and a number as an environment value fail."""
    job_set = _job_set()
    place = job_set
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert list(validators["JobSet"].iter_errors(job_set))


def test_quantities_may_be_numbers_or_text(validators: dict[str, jsonschema.Draft202012Validator]) -> None:
    """A resource's amount is an integer or a text such as 4Gi, and nothing else."""
    job_set = _job_set()
    container = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    requests = container["resources"]["requests"]
    for amount, valid in ((4, True), ("4Gi", True), (True, False), ("4 Gi", False)):
        requests["memory"] = amount
        assert validators["JobSet"].is_valid(job_set) is valid
