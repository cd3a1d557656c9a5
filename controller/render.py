"""Station 3, render: a resolved job in, one immutable ConfigMap and one JobSet out, as plain data.

The shape is in `templates/*.j2`; here are the values that fill it. `controller/podspec.py` gives the pod's.
It decides nothing about a batch and knows no API server: the same input renders the same bytes at every door.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Undefined

from controller import names, podspec
from controller.grpojob import GRPOJob
from controller.resolve import Resolved
from controller.settings import Settings
from controller.tpu import TpuSlice
from trainer.contract.exits import FATAL
from trainer.contract.identity import identity
from trainer.contract.runfolder import RUN_ID_LENGTH

DEFAULT_SETTINGS = Settings()
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where PyYAML has it: Python's takes ten times as long, half of what an operator does for a job."""

JOB_SET_KEY = "jobset.json"
"""Beside run.json in the ConfigMap: the JobSet that every re-creation posts, never one of newer templates."""

EXCLUSIVE_TOPOLOGY = "alpha.jobset.sigs.k8s.io/exclusive-topology"
NODE_POOL = "cloud.google.com/gke-nodepool"
QUEUE_NAME = "kueue.x-k8s.io/queue-name"
QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
MAX_RUN_DURATION = "provreq.kueue.x-k8s.io/maxRunDurationSeconds"
LONGEST_FLEX_START = 7 * 24 * 3600
"""Seconds that the Dynamic Workload Scheduler grants at most
(https://cloud.google.com/kubernetes-engine/docs/concepts/dws)."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """What is applied, in this order: the JobSet's pods mount the ConfigMap."""

    config_map: dict[str, Any]
    job_set: dict[str, Any]

    @property
    def documents(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.config_map, self.job_set


def render(
    resolved: Resolved,
    *,
    settings: Settings = DEFAULT_SETTINGS,
    run_id: str | None = None,
    owner: str | None = None,
    namespace: str | None = None,
) -> Manifests:
    """The manifests of one run. `owner` is the UID of the GRPOJob in a cluster, None where there is no cluster.

    `run_id` is by default the owner's first eight digits, and without an owner those of the RunConfig's identity.
    """
    metadata = _metadata(resolved.job, owner, namespace)
    run_id = run_id or (owner or identity(resolved.run))[:RUN_ID_LENGTH]
    values = _job_set_values(resolved, settings, metadata, run_id)

    # The JobSet names the ConfigMap that holds it and is named by its content: so the content is hashed without a name.
    job_set = _fill("jobset.yaml.j2", **values, **podspec.pod_values(resolved, settings, run_id, config_map=""))
    run_config = resolved.run.to_json()
    config_map = f"{resolved.job.metadata.name}-run-{_content_hash(run_config, job_set)}"
    _mount(job_set, config_map)
    data = {names.RUN_CONFIG_KEY: run_config, JOB_SET_KEY: json.dumps(job_set, indent=2) + "\n"}
    frozen = _fill(
        "configmap.yaml.j2",
        config_map=config_map,
        metadata=metadata,
        labels=podspec.own_labels(resolved.job, run_id),
        data=data,
    )
    return Manifests(frozen, job_set)


def to_yaml(manifests: Manifests) -> str:
    """The documents as one YAML stream for people and `kubectl apply -f -`."""
    return "---\n".join(yaml_of(document) for document in manifests.documents)


def yaml_of(document: Mapping[str, Any]) -> str:
    """One object as YAML."""
    return yaml.dump(document, Dumper=_BlockDumper, sort_keys=False, allow_unicode=True, width=120)


def _metadata(job: GRPOJob, owner: str | None, namespace: str | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if namespace or job.metadata.namespace:
        metadata["namespace"] = namespace or job.metadata.namespace
    if owner:
        reference = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": job.metadata.name, "uid": owner}
        metadata["ownerReferences"] = [{**reference, "controller": True, "blockOwnerDeletion": True}]
    return metadata


def _job_set_values(resolved: Resolved, settings: Settings, metadata: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    spec, annotations = resolved.job.spec, _annotations(resolved)
    return {
        "name": resolved.job.metadata.name,
        "metadata": metadata,
        "labels": podspec.own_labels(resolved.job, run_id) | _queue_labels(resolved.job),
        "annotations": [annotations] if annotations else [],
        "suspend": [True] if spec.queue else [],
        "subdomain": names.subdomain(resolved.job.metadata.name),
        "replicated_job": names.REPLICATED_JOB,
        "max_restarts": spec.restart.max_restarts + spec.restart.max_disruptions,
        "slices": resolved.slices,
        "hosts": resolved.devices.hosts,
        "container": names.CONTAINER,
        "fatal_exit_codes": sorted(FATAL),
        "image": spec.image or settings.image,
    }


def _queue_labels(job: GRPOJob) -> dict[str, str]:
    queue = job.spec.queue
    if queue is None:
        return {}
    labels = {QUEUE_NAME: queue.local_queue}
    if queue.workload_priority_class:
        labels[QUEUE_PRIORITY] = queue.workload_priority_class
    return labels


def _annotations(resolved: Resolved) -> dict[str, str]:
    spec, annotations = resolved.job.spec, {}
    if spec.tpu is None or not isinstance(resolved.devices, TpuSlice):
        return {}
    # A node pool of one-host slices holds many slices: there exclusiveness would let one job lock all of them.
    if spec.tpu.placement == "ExclusiveNodePool" and resolved.devices.hosts > 1:
        annotations[EXCLUSIVE_TOPOLOGY] = NODE_POOL
    if spec.tpu.capacity.type == "FlexStart" and spec.queue:
        annotations[MAX_RUN_DURATION] = str(spec.lifecycle.active_deadline_seconds or LONGEST_FLEX_START)
    return annotations


def _mount(job_set: dict[str, Any], config_map: str) -> None:
    for replicated in job_set["spec"]["replicatedJobs"]:
        for volume in replicated["template"]["spec"]["template"]["spec"]["volumes"]:
            if volume["name"] == podspec.RUN_CONFIG_VOLUME:
                volume["configMap"]["name"] = config_map


def _content_hash(run_config: str, job_set: Mapping[str, Any]) -> str:
    return hashlib.sha256((run_config + json.dumps(job_set)).encode()).hexdigest()[:8]


def _fill(template: str, **values: Any) -> dict[str, Any]:
    filled: dict[str, Any] = yaml.load(_environment().get_template(template).render(values), Loader=_LOADER)  # noqa: S506 - safe
    return filled


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("controller"),
        undefined=StrictUndefined,
        finalize=_refuse_none,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - YAML, not HTML; tojson quotes every value
    )
    environment.filters["tojson"] = yaml_scalar
    return environment


def _refuse_none(value: Any) -> Any:
    """StrictUndefined lets None pass, which would be printed as `None`."""
    if value is None:
        raise ValueError("a template prints None")
    return value


def yaml_scalar(value: Any) -> str:
    """JSON that YAML reads as the same data. Raises ValueError on None and on a float at any depth.

    No manifest holds either: a null is a value forgotten, and YAML reads 1e-06 as text. JSON writes a character beyond
    the first plane as two surrogates, which YAML would keep apart: it has an escape of eight digits for them.
    """
    if isinstance(value, Undefined):
        str(value)  # raises, with the name that is missing
    if _holds_unprintable(value):
        raise ValueError(f"a template prints null or a float: {value!r}")
    return re.sub(r"\\u(d[89ab]..)\\u(d[c-f]..)", _one_character, json.dumps(value))


def _holds_unprintable(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_unprintable(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_unprintable(item) for item in value)
    return value is None or isinstance(value, float)


def _one_character(pair: re.Match[str]) -> str:
    high, low = (int(half, 16) for half in pair.groups())
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


class _BlockDumper(yaml.SafeDumper):
    """Long texts as blocks, so that run.json inside a ConfigMap can be read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _present_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """A client may read YAML 1.2, where 123456e7, which may be a run id, is a number: PyYAML would not quote it."""
    style = "|" if "\n" in text else '"' if text[:1] in set("+-.0123456789") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_BlockDumper.add_representer(str, _present_text)
