"""Pods of jobs and of the operator under Kubernetes' strictest standard, judged by the API server itself.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane.looking import until
from tests.controlplane.world import World

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
RENDERED = FOLDER.parent / "controller" / "rendered"
CHART = FOLDER / "chart" / "rendered"
JOBS = sorted(path.name for path in RENDERED.iterdir())
INSTALLATIONS = sorted(path.stem for path in CHART.glob("*.yaml"))


@pytest.fixture(scope="module")
def restricted(world: World) -> Iterator[str]:
    """A namespace where the standard is enforced."""
    world.kubectl("create", "namespace", "restricted")
    world.kubectl("label", "namespace", "restricted", "pod-security.kubernetes.io/enforce=restricted")
    account = ("-n", "restricted", "get", "serviceaccount", "default")
    until(lambda: world.kubectl(*account).returncode == 0, "the namespace's account")
    yield "restricted"
    world.kubectl("delete", "namespace", "restricted", "--wait=false")


def refusal(world: World, namespace: str, template: dict[str, Any]) -> str:
    """What the API server says against a pod of this template; nothing is stored."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "judged"}, "spec": template["spec"]}
    pod["spec"].pop("serviceAccountName", None)
    pod["spec"].pop("priorityClassName", None)
    made = world.kubectl("-n", namespace, "create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))
    return made.stderr if made.returncode else ""


def worker(job_set: dict[str, Any]) -> dict[str, Any]:
    (replicated,) = job_set["spec"]["replicatedJobs"]
    template: dict[str, Any] = replicated["template"]["spec"]["template"]
    return template


@pytest.mark.parametrize("case", JOBS)
def test_a_jobs_pods_keep_to_the_standard(case: str, world: World, restricted: str) -> None:
    """Unless the job asks for the host's network, which is refused by name."""
    _, job_set = yaml.safe_load_all((RENDERED / case / "manifests.yaml").read_text())
    template = worker(job_set)
    said = refusal(world, restricted, template)
    if template["spec"].get("hostNetwork"):
        assert "host namespaces (hostNetwork=true)" in said
    else:
        assert said == ""


def test_the_profile_root_is_refused_there(world: World, restricted: str) -> None:
    """The fallback for TPUs needs a namespace that allows it; what is refused is the user, and nothing else."""
    job = "configs/jobs/qwen2.5-0.5b-gsm8k-v5e-2x2.yaml"
    command = [sys.executable, "-m", "controller", "render", job, "--set", "securityContext.profile=Root"]
    rendered = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    _, job_set = yaml.safe_load_all(rendered)
    said = refusal(world, restricted, worker(job_set))
    assert "runAsNonRoot != true" in said
    assert "runAsUser=0" in said
    assert "privileged" not in said


@pytest.mark.parametrize("case", INSTALLATIONS)
def test_the_operators_pods_keep_to_the_standard(case: str, world: World, restricted: str) -> None:
    """With whatever values the chart is installed."""
    documents = [one for one in yaml.safe_load_all((CHART / f"{case}.yaml").read_text()) if one]
    templates = [one["spec"]["template"] for one in documents if one["kind"] == "Deployment"]
    assert templates
    assert [said for said in (refusal(world, restricted, template) for template in templates) if said] == []


def test_the_standard_is_in_force(world: World, restricted: str) -> None:
    """A pod that runs as root is refused there: what the others show is no accident."""
    pod = {"spec": {"containers": [{"name": "one", "image": "one", "securityContext": {"runAsUser": 0}}]}}
    assert "runAsUser=0" in refusal(world, restricted, pod)
