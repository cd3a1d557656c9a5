"""What the chart renders: word for word, valid for the API server, and of each setting what it promises.

`chart/values/CASE.yaml` rendered is `chart/rendered/CASE.yaml`, but for the definition. A change of the templates is
reviewed by its effect: REGENERATE=1 pytest tests/controlplane/test_chart.py
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller import __version__
from controller.operator.jobmetrics import JobMetrics
from controller.operator.options import command
from controller.runtime.metrics import Metrics, QueueMetrics, ReconcileMetrics
from controller.runtime.queue import WorkQueue
from controller.runtime.store import Store
from controller.webhook.registration import configuration
from tests.controlplane.binaries import program
from tests.controlplane.openapi import write_schemas
from tests.controlplane.releases import CHART, helm, set_flags
from tests.controlplane.rights import manifests, verbs
from tests.controlplane.world import ROOT, World

HERE = Path(__file__).with_name("chart")
CASES = sorted(path.stem for path in (HERE / "values").iterdir())
FOREIGN = "CustomResourceDefinition,ServiceMonitor,PrometheusRule,Certificate,Issuer"
"""Kinds that the test's API server does not have, and definitions, whose own schema kubeconform cannot hold."""
FUNCTIONS = {"histogram_quantile", "group_left"}
PARTS = re.compile(r"^---\n", re.MULTILINE)
Body = dict[str, Any]


def documents(text: str) -> list[Body]:
    return [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]


def rendered(*arguments: str) -> str:
    done = helm("template", "grpo", str(CHART), "--namespace", "grpo-system", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def case_flag(case: str) -> str:
    return f"--values={HERE / 'values' / case}.yaml"


def objects(**values: Any) -> dict[tuple[str, str], Body]:
    """By kind and name; `a__b` is `a.b`."""
    spelt = {path.replace("__", "."): value for path, value in values.items()}
    found = documents(rendered(*set_flags(spelt)))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def container(found: dict[tuple[str, str], Body]) -> Body:
    pod = found["Deployment", "grpo-operator"]["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    return dict(only)


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    """Values render to the very text that was reviewed."""
    parts = PARTS.split(rendered(case_flag(case)))
    text = "---\n".join(part for part in parts if "kind: CustomResourceDefinition" not in part)
    golden = HERE / "rendered" / f"{case}.yaml"
    if os.environ.get("REGENERATE"):
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text


def test_every_case_passes_the_strict_lint() -> None:
    """`helm lint --strict` finds nothing in any of them."""
    for case in CASES:
        done = helm("lint", "--strict", str(CHART), case_flag(case))
        assert done.returncode == 0, done.stdout


def test_kubeconform_knows_every_key(world: World, tmp_path: Path) -> None:
    """Every object of every case has keys and types of the API server; a misspelt key would be found."""
    location = write_schemas(world, tmp_path)
    check = [str(program("kubeconform")), "-strict", "-summary", "-skip", FOREIGN, "-schema-location", location]
    every = "".join(rendered(case_flag(case)) for case in CASES)
    done = subprocess.run(check, input=every, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Valid: 0," not in done.stdout
    wrong = rendered().replace("revisionHistoryLimit", "revisionHistroyLimit")
    done = subprocess.run(check, input=wrong, capture_output=True, text=True, check=False)
    assert "'revisionHistroyLimit' not allowed" in done.stdout


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("replicass=2", "additional properties 'replicass' not allowed"),
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("watchNamespaces=team-a", "at '/watchNamespaces': got string, want array"),
        ("image.digest=latest", "at '/image/digest': 'latest' does not match pattern '^(sha256:[a-f0-9]{64})?$'"),
        ("webhook.failurePolicy=Maybe", "at '/webhook/failurePolicy': value must be one of 'Ignore', 'Fail'"),
        ("webhook.port=443", "at '/webhook/port': minimum: got 443, want 1,024"),
        ("image.tag=", ""),
    ],
)
def test_wrong_values_are_refused_by_their_path(flag: str, words: str) -> None:
    """Unknown keys and wrong types are told with the path and what is wanted; an empty tag is the chart's version."""
    done = helm("template", "grpo", str(CHART), "--set", flag)
    assert (done.returncode == 0) == (not words), done.stderr
    assert words in done.stderr


def test_every_value_is_there_and_described() -> None:
    """values.yaml and its schema have the same keys; the chart is of the operator's version."""

    def keys(schema: Body) -> Body:
        return {key: keys(one) if "properties" in one else None for key, one in schema.get("properties", {}).items()}

    def shown(values: Body, known: Body) -> Body:
        return {key: shown(one, known[key]) if known.get(key) else None for key, one in values.items()}

    schema = keys(json.loads((CHART / "values.schema.json").read_text()))
    (values,) = documents((CHART / "values.yaml").read_text())
    del schema["global"], schema["resources"]["claims"]
    values["webhook"]["certificates"]["issuerRef"] = schema["webhook"]["certificates"]["issuerRef"]
    assert shown(values, schema) == schema
    (chart,) = documents((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_an_old_cluster_is_refused() -> None:
    """With its version and the one that is needed."""
    done = helm("template", "grpo", str(CHART), "--kube-version", "1.30.4")
    assert "chart requires kubeVersion: >=1.31.0-0 which is incompatible with Kubernetes v1.30.4" in done.stderr


def test_the_definition_is_the_generated_one_and_stays() -> None:
    """It is that of crds/, kept by an uninstall, and left away where somebody else installs it."""
    (generated,) = documents((ROOT / "crds" / "grpojobs.yaml").read_text())
    found = objects()["CustomResourceDefinition", "grpojobs.grpo.dev"]
    assert found["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert found == generated
    assert ("CustomResourceDefinition", "grpojobs.grpo.dev") not in objects(crds__install=False)


def test_the_webhook_is_the_operators_own() -> None:
    """Rules and conditions are those that the operator itself writes; whom to trust is left to it."""
    found = objects()["ValidatingWebhookConfiguration", "grpo-operator.grpo-system"]["webhooks"]
    service = {"name": "grpo-operator", "namespace": "grpo-system", "path": "/validate", "port": 443}
    (expected,) = configuration("any", {"service": service})["webhooks"]
    assert found == [expected | {"matchPolicy": "Equivalent"}]


def test_nothing_that_the_operator_writes_is_rendered() -> None:
    """No Secret, Lease, EndpointSlice or caBundle: an upgrade would take away, or fight over, what it wrote."""
    for case in CASES:
        found = documents(rendered(case_flag(case)))
        assert not {one["kind"] for one in found} & {"Secret", "Lease", "EndpointSlice"}
        assert not any("caBundle" in one["clientConfig"] for each in found for one in each.get("webhooks", ()))


@pytest.mark.parametrize("case", CASES)
def test_the_operator_takes_its_flags(case: str) -> None:
    """Each flag of the Deployment is one that `grpo-operator` knows, with a value that it accepts."""
    found = documents(rendered(case_flag(case)))
    (deployment,) = (one for one in found if one["kind"] == "Deployment")
    taken: list[Any] = []
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    assert only["command"] == ["grpo-operator"]
    command(taken.append).main(only["args"], standalone_mode=False)
    assert len(taken) == 1


def test_pods_are_restricted() -> None:
    """What the profile *restricted* of Pod Security asks for, and a root file system that nobody writes to."""
    for name in (("Deployment", "grpo-operator"), ("Pod", "grpo-operator-check")):
        found = objects()[name]["spec"]
        pod = found["template"]["spec"] if "template" in found else found
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in pod["containers"]:
            secured = one["securityContext"]
            assert secured["capabilities"] == {"drop": ["ALL"]}
            assert secured["allowPrivilegeEscalation"] is False
            assert secured["readOnlyRootFilesystem"] is True
            assert one["resources"]["limits"]["memory"]


def test_an_image_may_be_named_by_digest() -> None:
    """A digest wins over a tag, and a tag over the chart's version."""
    assert container(objects())["image"] == "ghcr.io/grpo-dev/grpo-operator:0.1.0"
    assert container(objects(image__tag="9"))["image"] == "ghcr.io/grpo-dev/grpo-operator:9"
    digest = f"sha256:{'a' * 64}"
    assert container(objects(image__tag="9", image__digest=digest))["image"].endswith(f"grpo-operator@{digest}")


def test_users_may_use_jobs_by_the_roles_they_have() -> None:
    """`edit` and `admin` change jobs, `view` sees them; nobody but the operator writes a status."""
    edit = objects()["ClusterRole", "grpo-operator.grpo-system-edit"]
    view = objects()["ClusterRole", "grpo-operator.grpo-system-view"]
    aggregated = "rbac.authorization.k8s.io/aggregate-to-"
    assert {f"{aggregated}admin", f"{aggregated}edit"} <= edit["metadata"]["labels"].keys()
    assert view["metadata"]["labels"][f"{aggregated}view"] == "true"
    assert {verb for rule in view["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert {name for rule in edit["rules"] for name in rule["resources"]} == {"grpojobs"}


def test_alerts_and_dashboard_ask_for_what_is_measured() -> None:
    """Each series in an expression is one of the operator's /metrics."""
    metrics = Metrics()
    queue, series = WorkQueue(), QueueMetrics(metrics, "grpojob")
    series.show(queue)
    ReconcileMetrics(metrics, "grpojob")
    JobMetrics(metrics.registry, Store())
    measured = {sample for family in metrics.registry.collect() for sample in (family.name, f"{family.name}_total")} | {
        "controller_runtime_reconcile_time_seconds_bucket"
    }
    found = objects(metrics__prometheusRule__enabled=True, metrics__dashboard__enabled=True)
    rules = found["PrometheusRule", "grpo-operator"]["spec"]["groups"][0]["rules"]
    board = json.loads(found["ConfigMap", "grpo-operator-dashboard"]["data"]["grpojobs.json"])
    asked = [rule["expr"] for rule in rules]
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    named = {name for one in asked for name in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b|\bgrpojobs\b", _without_labels(one))}
    assert len(named) > 8
    assert named - FUNCTIONS <= measured


def _without_labels(expression: str) -> str:
    return re.sub(r"\{[^}]*\}|\b(by|on) \([^)]*\)", "", expression)


def test_the_documented_rights_are_those_of_the_chart() -> None:
    """The table of docs/operator.md has each resource with its verbs."""
    page = (ROOT / "docs" / "operator.md").read_text().partition("## What it may do")[2]
    rows = re.findall(r"^\| (?:in its own namespace: |… )?([a-z/]+)\b[^|]*\| ([a-z, ]+) \|", page, re.MULTILINE)
    told = {(resource, verb) for resource, some in rows for verb in some.split(", ") if resource != "resource"}
    assert told == {(resource, verb) for _, resource, verb in verbs(manifests("team", "grpo-system"))}
