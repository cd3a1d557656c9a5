"""The CRD as data: structural, bounded, fresh, and in the words of the rules.

What the API server makes of it is seen in tests/controlplane.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller import crd
from controller.grpojob import read_job
from controller.resolve import resolve
from controller.tpu import CpuHosts, TpuSlice, find_slice, in_short

ROOT = Path(__file__).resolve().parents[2]
DEFINITION = crd.definition()
(VERSION,) = DEFINITION["spec"]["versions"]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]["properties"]


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value that the schema speaks of, by its path."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", ".*")):
        if key in schema:
            yield from nodes(schema[key], path + mark)


ALL = [*nodes(SCHEMA["spec"], "spec"), *nodes(SCHEMA["status"], "status")]


def test_the_committed_definition_is_that_of_the_types() -> None:
    """crds/grpojobs.yaml is what the types say today."""
    assert yaml.safe_load((ROOT / "crds" / "grpojobs.yaml").read_text()) == DEFINITION


def test_everything_that_grows_is_bounded() -> None:
    """Texts, lists and maps have an end, and whole numbers both: without it a CEL rule has no price."""
    bounds = {"string": {"maxLength"}, "array": {"maxItems"}, "integer": {"minimum", "maximum"}}

    open_ended = [
        path for path, node in ALL if not bounds.get(node.get("type", ""), set()) <= node.keys() and "enum" not in node
    ]
    maps = [path for path, node in ALL if "additionalProperties" in node and "maxProperties" not in node]

    assert (open_ended, maps) == ([], [])


def test_the_schema_is_structural() -> None:
    """Every value has one type; no reference and no choice; two maps hold what the user's own code asks."""
    free = {path for path, node in ALL if node.get("x-kubernetes-preserve-unknown-fields")}

    assert [path for path, node in ALL if "type" not in node] == []
    assert free == {"spec.data.chatTemplateKwargs", "spec.rewards[].args"}
    assert not any({"$ref", "anyOf", "oneOf", "allOf", "const"} & node.keys() for _, node in ALL)


def test_null_may_stand_where_a_key_may_be_left_out() -> None:
    """Each key is required, has a default or is nullable: whoever writes null is never refused for it."""
    refusing = [
        f"{path}.{key}"
        for path, node in nodes(SCHEMA["spec"], "spec")
        for key, value in node.get("properties", {}).items()
        if not ("default" in value or value.get("nullable") or key in node.get("required", ()))
    ]

    assert refusing == []


def test_all_but_what_may_change_is_fixed() -> None:
    """Every key of spec has a transition rule of its own or of a list or map above it, but for the documented few."""
    fixed = {
        f"{path}{rule.get('fieldPath', '')}"
        for path, node in ALL
        for rule in node.get("x-kubernetes-validations", ())
        if rule["message"] == crd.FIXED
    }

    def free(section: dict[str, Any], path: str) -> Iterator[str]:
        for key, value in section["properties"].items():
            if "properties" in value:
                yield from free(value, f"{path}.{key}")
            elif f"{path}.{key}" not in fixed:
                yield f"{path}.{key}"

    deadlines = ("activeDeadlineSeconds", "startupDeadlineSeconds", "ttlSecondsAfterFinished")
    assert set(free(SCHEMA["spec"], "spec")) == {
        "spec.suspend",
        "spec.queue.localQueue",
        "spec.queue.workloadPriorityClass",
        *(f"spec.lifecycle.{key}" for key in deadlines),
    }
    assert {"spec.tpu", "spec.cpu", "spec.lora", "spec.code", "spec.checkpoint.initFrom"} <= fixed


def test_a_batch_field_is_not_filled_in() -> None:
    """Whether a size was given is a part of what the user says, so the server must not invent one."""
    rollout, train = (SCHEMA["spec"]["properties"][key]["properties"] for key in ("rollout", "train"))
    sizes = [rollout[key] for key in ("batchSize", "promptBatchSize", "perDeviceBatchSize")]
    sizes += [train[key] for key in ("microBatchSize", "perDeviceMicroBatchSize", "gradAccumSteps")]

    assert not any("default" in size for size in sizes)
    assert "default" not in SCHEMA["spec"]["properties"]["rewards"]["items"]["properties"]["weight"]


DEVICES = {"tpu": {"accelerator": "tpu-v6e-slice", "topology": "4x4"}, "cpu": {}}


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("spec", {}),
        ("spec.cpu", DEVICES),
        ("spec.code", {"cpu": {}, "code": {}}),
        ("spec.code", {"cpu": {}, "code": {"configMap": "a", "uri": "b"}}),
    ],
)
def test_a_choice_is_told_in_the_words_of_its_rule(path: str, given: dict[str, Any]) -> None:
    """What CEL says of one-ofs is what `grpoctl validate` says, at the same path."""
    said = {
        (f"{at}{rule.get('fieldPath', '')}", rule["message"])
        for at, node in ALL
        for rule in node.get("x-kubernetes-validations", ())
    }
    spec = {"modelPath": "/m", "rollout": {"batchSize": 16}, **given}
    job = read_job({"apiVersion": "grpo.dev/v1alpha1", "kind": "GRPOJob", "metadata": {"name": "a"}, "spec": spec})

    found = [one for one in resolve(job).violations if one.rule in ("one-device-kind", "code-one-of")]

    assert [one.path for one in found] == [path]
    assert {(one.path, one.message) for one in found} <= said


def test_descriptions_speak_of_keys_as_a_job_spells_them() -> None:
    """`kubectl explain` names no key in the runner's spelling."""
    overlong = SCHEMA["spec"]["properties"]["data"]["properties"]["overlong"]

    assert "rollout.globalLength" in overlong["description"]


def test_columns_are_those_of_the_design() -> None:
    """Phase, TPU, Step, Reward, Restarts, ETA, Age, each from a field that the schema knows."""
    columns = {column["name"]: column["jsonPath"] for column in VERSION["additionalPrinterColumns"]}
    known = {f".{path}" for path, _ in ALL} | {".metadata.creationTimestamp"}

    assert list(columns) == ["Phase", "TPU", "Step", "Reward", "Restarts", "ETA", "Age"]
    assert set(columns.values()) <= known


def test_a_machine_has_a_short_name() -> None:
    """The column TPU says slices and topology, and of CPU hosts their number and devices."""
    v6e = find_slice("tpu-v6e-slice", "4x4", None)
    assert isinstance(v6e, TpuSlice)

    assert [in_short(v6e, 1), in_short(v6e, 2)] == ["v6e 4x4", "2 x v6e 4x4"]
    assert in_short(CpuHosts(2, 4, "1", "2Gi"), 1) == "cpu 2x4"
