"""What is frozen at acceptance, and that every door renders the same: the ConfigMap, identity, text."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError

from controller import render as station
from controller.render import Manifests, render, to_yaml, yaml_scalar
from controller.resolve import Resolved
from trainer.contract.identity import identity
from trainer.contract.run import RunConfig

Render = Callable[..., Manifests]
Resolve = Callable[..., Resolved]
UID = "0f4b6a1e-8d7c-4f0e-9a51-3c2d1e0f9a8b"
TEMPLATES = sorted((Path(station.__file__).parent / "templates").glob("*.j2"))


def _pod(manifests: Manifests) -> Any:
    return manifests.job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_the_config_map_is_immutable(render_job: Render) -> None:
    """What a run was accepted as cannot be edited."""
    assert render_job().config_map["immutable"] is True


def test_run_json_is_the_run_config(resolve_job: Resolve) -> None:
    """The trainer reads back exactly what was resolved."""
    resolved = resolve_job()
    assert RunConfig.from_json(render(resolved).config_map["data"]["run.json"]) == resolved.run


def test_the_frozen_jobset_is_the_one_rendered(render_job: Render) -> None:
    """The ConfigMap holds the JobSet verbatim, its reference to that ConfigMap included."""
    manifests = render_job()
    assert json.loads(manifests.config_map["data"]["jobset.json"]) == manifests.job_set


def test_the_config_maps_name_is_its_content(resolve_job: Resolve) -> None:
    """The same job has the same name; another RunConfig or another pod setting has another."""
    resolved = resolve_job()
    longer = replace(resolved, run=resolved.run.model_copy(update={"steps": 200}))
    spec = resolved.job.spec.model_copy(update={"priority_class_name": "high"})
    urgent = replace(resolved, job=replace(resolved.job, spec=spec))
    one, same, *others = (render(each).config_map["metadata"]["name"] for each in (resolved, resolved, longer, urgent))
    assert one == same
    assert len({one, *others}) == 3
    assert all(re.fullmatch(r"demo-run-[0-9a-f]{8}", name) for name in (one, *others))


def test_both_objects_carry_the_jobs_labels(render_job: Render) -> None:
    """ConfigMap, JobSet and pods are found by job and run id."""
    manifests = render_job(run_id="12345678")
    template = manifests.job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    for metadata in (manifests.config_map["metadata"], manifests.job_set["metadata"], template["metadata"]):
        assert metadata["labels"]["grpo.dev/job"] == "demo"
        assert metadata["labels"]["grpo.dev/run-id"] == "12345678"


def _run_id(manifests: Manifests) -> str:
    (value,) = [v["value"] for v in _pod(manifests)["containers"][0]["env"] if v["name"] == "GRPO_RUN_ID"]
    return str(value)


def test_the_run_id_is_of_the_uid_else_of_the_run_config(resolve_job: Resolve) -> None:
    """In a cluster the first eight of the job's UID; without one those of the run's identity; or what is given."""
    resolved = resolve_job()
    assert _run_id(render(resolved)) == identity(resolved.run)[:8]
    assert _run_id(render(resolved, owner=UID)) == "0f4b6a1e"
    assert _run_id(render(resolved, owner=UID, run_id="abcdef01")) == "abcdef01"


def test_the_owner_is_the_grpojob(render_job: Render) -> None:
    """Deleting the job deletes both, and its controller is the one; without a cluster nobody owns them."""
    reference = {
        "apiVersion": "grpo.dev/v1alpha1",
        "kind": "GRPOJob",
        "name": "demo",
        "uid": UID,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    for document in render_job(owner=UID).documents:
        assert document["metadata"]["ownerReferences"] == [reference]
    for document in render_job().documents:
        assert "ownerReferences" not in document["metadata"]


def test_every_door_renders_the_same_but_for_owner_and_run_id(render_job: Render) -> None:
    """With its owner reference removed and the run id put in, the controller's JobSet is that of `grpoctl render`."""
    here, there = render_job(), render_job(owner=UID)
    del there.job_set["metadata"]["ownerReferences"]
    text = json.dumps(there.job_set).replace("0f4b6a1e", _run_id(here))
    text = text.replace(there.config_map["metadata"]["name"], here.config_map["metadata"]["name"])
    assert json.loads(text) == here.job_set


def test_the_namespace_is_given_or_the_jobs(render_file: Callable[..., Manifests]) -> None:
    """Both objects go where the job is; without a namespace kubectl's is used."""
    rendered = Path(__file__).parent / "rendered"
    for document in render_file(rendered / "pod-settings" / "job.yaml").documents:
        assert document["metadata"]["namespace"] == "research"
    for document in render_file(rendered / "cpu" / "job.yaml", namespace="team-b").documents:
        assert document["metadata"]["namespace"] == "team-b"
    for document in render_file(rendered / "cpu" / "job.yaml").documents:
        assert "namespace" not in document["metadata"]


def test_yaml_reads_back_as_the_data(render_job: Render) -> None:
    """What is printed is what was rendered, characters beyond ASCII included."""
    manifests = render_job({"env": [{"name": "X", "value": "grüß dich 😀 \u2028\x85\x7f"}]})
    assert tuple(yaml.safe_load_all(to_yaml(manifests))) == manifests.documents


@pytest.mark.parametrize("run_id", ["12345678", "123456e7", "0x123456", "00000001"])
def test_a_run_id_stays_text_in_yaml(run_id: str, render_job: Render) -> None:
    """Eight digits that another YAML reader takes for a number are quoted: an environment value must be text."""
    text = to_yaml(render_job(run_id=run_id))
    assert f'value: "{run_id}"' in text
    assert f"grpo.dev/run-id: {run_id}" not in text


JSON = st.recursive(
    st.booleans() | st.integers() | st.text(st.characters(exclude_categories=("Cs",))),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_value_survives_the_template(value: Any) -> None:
    """What a user writes is data: no quote, line break, brace or character of it changes the document around it."""
    text = f"before: 1\nvalue: {yaml_scalar(value)}\nafter: 2\n"
    assert yaml.safe_load(text) == {"before": 1, "value": value, "after": 2}


@pytest.mark.parametrize("value", [None, {"a": None}, [{"b": [None]}], 1.5, {"a": [1e-6]}])
def test_a_forgotten_value_is_an_error(value: Any) -> None:
    """No null and no float reaches a manifest at any depth."""
    with pytest.raises(ValueError, match="null or a float"):
        yaml_scalar(value)


def test_an_undefined_value_is_an_error() -> None:
    """A template that names what it was not given does not print an empty place."""
    with pytest.raises(UndefinedError):
        station._fill("configmap.yaml.j2", metadata={}, labels={}, data={})


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates_hold_no_logic_and_no_bare_value(template: Path) -> None:
    """Only `for`, and every value through tojson: what could decide or print raw is refused in a template."""
    text = template.read_text(encoding="utf-8")
    statements = re.findall(r"{%-?\s*(\w+)", text)
    assert set(statements) <= {"for", "endfor"}
    values = re.findall(r"{{(.*?)}}", text)
    assert values
    assert all(re.fullmatch(r" \w+ \| tojson ", value) for value in values)
