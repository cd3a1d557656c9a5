"""Manifests of the documentation, asked of a real API server with JobSet, Kueue and our definition in it."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.controlplane.admission import install_crd
from tests.controlplane.looking import read, until
from tests.controlplane.world import World
from tests.documented import ROOT, objects
from tests.repository.test_shown_manifests import PARTS, merged

TEAM = "team-a"
"""The namespace of the pages."""


@pytest.fixture(scope="module")
def cluster(kueue: World) -> Iterator[World]:
    install_crd(kueue)
    kueue.kubectl("create", "namespace", TEAM)
    until(lambda: kueue.kubectl("-n", TEAM, "get", "serviceaccount", "default").returncode == 0, "the account")
    yield kueue
    kueue.kubectl("delete", "namespace", TEAM, "--wait=false")
    for kind in ("ClusterQueue", "ResourceFlavor"):
        (body,) = shown(kind)
        kueue.kubectl("delete", f"{kind}.v1beta2.kueue.x-k8s.io", body["metadata"]["name"], "--wait=false")


def shown(kind: str, page: str = "gke.md") -> list[dict[str, Any]]:
    return [body for block, body in objects() if body["kind"] == kind and block.page.name == page]


def test_every_manifest_that_is_shown_is_taken(cluster: World) -> None:
    """Schema, defaults and webhooks let each of them in; a key that they do not know would be refused."""
    for block, body in objects():
        arguments = ("-n", TEAM) if body["kind"] not in ("ResourceFlavor", "ClusterQueue") else ()
        text = yaml.safe_dump(body)
        command = (*arguments, "apply", "--dry-run=server", "--validate=strict", "-f", "-")
        applied = cluster.kubectl(*command, stdin=text)
        assert applied.returncode == 0, f"{block}: {applied.stderr}"


def test_the_queues_of_the_guide_admit_its_job(cluster: World) -> None:
    """The flavor fits the slice, and the quota covers all that the pods ask for: the JobSet is let go."""
    for kind in ("ResourceFlavor", "ClusterQueue", "LocalQueue"):
        (body,) = shown(kind)
        apply(cluster, yaml.safe_dump(body))
    (job,) = shown("GRPOJob")
    (queue,) = [part for part in parts() if "queue" in part["spec"]]
    apply(cluster, rendered(merged(job, queue)))
    name = job["metadata"]["name"]
    until(lambda: not read(cluster, TEAM, "jobset", name)["spec"]["suspend"], "Kueue's admission")


def apply(cluster: World, text: str) -> None:
    applied = cluster.kubectl("apply", "-f", "-", stdin=text)
    assert applied.returncode == 0, applied.stderr


def rendered(job: dict[str, Any]) -> str:
    command = [sys.executable, "-m", "controller", "render", "-"]
    return subprocess.run(
        command, cwd=ROOT, input=yaml.safe_dump(job), capture_output=True, text=True, check=True
    ).stdout


def parts() -> list[dict[str, Any]]:
    return [block.documents[0] for block in PARTS if block.page.name == "gke.md"]
