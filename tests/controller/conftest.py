"""Jobs as files or as plain data, taken along the real road: read, resolved, rendered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.grpojob import read_jobs
from controller.render import Manifests, render
from controller.resolve import Resolved, resolve


def _resolve_text(text: str, source: str) -> Resolved:
    (job,) = [document.job for document in read_jobs(text, source) if document.job is not None]
    outcome = resolve(job)
    assert outcome.resolved is not None, [str(violation) for violation in outcome.violations]
    return outcome.resolved


@pytest.fixture
def resolve_job() -> Callable[..., Resolved]:
    """`resolve_job({...spec...}, name="demo")`: a valid job of that spec, on one v6e slice unless it names devices."""

    def resolve_job(spec: dict[str, Any] | None = None, name: str = "demo") -> Resolved:
        given = spec or {}
        devices = {} if {"tpu", "cpu"} & given.keys() else {"tpu": {"accelerator": "tpu-v6e-slice", "topology": "4x4"}}
        whole = {"modelPath": "Qwen/Qwen2.5-0.5B-Instruct", "rollout": {"perDeviceBatchSize": 2}, **devices, **given}
        document = {"apiVersion": "grpo.dev/v1alpha1", "kind": "GRPOJob", "metadata": {"name": name}, "spec": whole}
        return _resolve_text(yaml.safe_dump(document), "test")

    return resolve_job


@pytest.fixture
def render_job(resolve_job: Callable[..., Resolved]) -> Callable[..., Manifests]:
    """As `resolve_job`, rendered; keyword arguments are those of `render`."""

    def render_job(spec: dict[str, Any] | None = None, name: str = "demo", **options: Any) -> Manifests:
        return render(resolve_job(spec, name), **options)

    return render_job


@pytest.fixture
def render_file() -> Callable[..., Manifests]:
    """The manifests of the one job in a file."""

    def render_file(path: Path, **options: Any) -> Manifests:
        return render(_resolve_text(path.read_text(encoding="utf-8"), path.name), **options)

    return render_file
