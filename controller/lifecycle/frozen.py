"""What a job was accepted as: one immutable ConfigMap with the RunConfig, the JobSet that every re-creation posts, and
the specification of which they were made.

In: a resolved job, or a ConfigMap of any earlier version. Out: manifests. It renders once, at acceptance; afterwards
only queue, suspension and the number of earlier attempts are filled in: newer templates and defaults change nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller import names, podspec
from controller.grpojob import QueueSpec
from controller.lifecycle.accepted import ACCEPTED_KEY, kept
from controller.render import JOB_SET_KEY, QUEUE_NAME, QUEUE_PRIORITY, Manifests, render
from controller.resolve import Resolved
from controller.settings import Settings
from controller.statustypes import PlanStatus
from trainer.contract.exits import RunError
from trainer.contract.process import ENV_ATTEMPTS_BEFORE
from trainer.contract.run import RunConfig

Body = Mapping[str, Any]
OPEN = "x-kubernetes-preserve-unknown-fields"


def freeze(
    resolved: Resolved, spec: Body, settings: Settings, uid: str, namespace: str, job_set_schema: Body
) -> tuple[Manifests, tuple[str, ...]]:
    """The manifests of a job with this specification, and the paths that the installed JobSet does not know, which are
    left out.
    """
    manifests = render(resolved, settings=settings, owner=uid, namespace=namespace)
    job_set_spec, unknown = _known(manifests.job_set["spec"], job_set_schema, "spec")
    data, job_set = manifests.config_map["data"] | {ACCEPTED_KEY: kept(spec)}, manifests.job_set
    if unknown:
        job_set = job_set | {"spec": job_set_spec}
        data |= {JOB_SET_KEY: json.dumps(job_set, indent=2) + "\n"}
    return replace(manifests, config_map=manifests.config_map | {"data": data}, job_set=job_set), tuple(unknown)


def posted(config_map: Body, queue: QueueSpec | None, attempts_before: int) -> dict[str, Any]:
    """The frozen JobSet as it is created now."""
    job_set: dict[str, Any] = json.loads(config_map["data"][JOB_SET_KEY])
    labels = job_set["metadata"]["labels"]
    for key in (QUEUE_NAME, QUEUE_PRIORITY):
        labels.pop(key, None)
    job_set["spec"].pop("suspend", None)
    if queue is not None:
        labels[QUEUE_NAME] = queue.local_queue
        job_set["spec"]["suspend"] = True
        if queue.workload_priority_class:
            labels[QUEUE_PRIORITY] = queue.workload_priority_class
    if attempts_before:
        (replicated,) = job_set["spec"]["replicatedJobs"]
        (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
        container["env"].append({"name": ENV_ATTEMPTS_BEFORE, "value": str(attempts_before)})
    return job_set


def plan_of(config_map: Body) -> PlanStatus | None:
    """The plan as the status shows it; None where another version wrote what this one does not read."""
    run = _run_of(config_map)
    return PlanStatus.model_validate(run.batch.as_dict()) if run else None


def output_of(config_map: Body) -> str | None:
    run = _run_of(config_map)
    return run.output_uri if run else None


def _run_of(config_map: Body) -> RunConfig | None:
    try:
        return RunConfig.from_json(config_map["data"][names.RUN_CONFIG_KEY])
    except RunError:
        return None


def config_name_in(job_set: Body) -> str | None:
    """The ConfigMap that a JobSet's pods mount."""
    for replicated in job_set["spec"].get("replicatedJobs") or ():
        for volume in replicated["template"]["spec"]["template"]["spec"].get("volumes") or ():
            if volume["name"] == podspec.RUN_CONFIG_VOLUME:
                found: str = volume["configMap"]["name"]
                return found
    return None


def _known(value: Any, schema: Body, path: str) -> tuple[Any, list[str]]:
    """What of a value a structural schema has fields for, and the paths of the rest."""
    if isinstance(value, list):
        pairs = [_known(item, schema.get("items", {}), f"{path}[]") for item in value]
        return [kept for kept, _ in pairs], list(dict.fromkeys(lost for _, below in pairs for lost in below))
    if not isinstance(value, Mapping):
        return value, []
    fields, rest = schema.get("properties", {}), schema.get("additionalProperties")
    if schema.get(OPEN) or (not fields and rest is None):
        return value, []
    kept, lost = {}, []
    for key, item in value.items():
        below = fields.get(key, rest if isinstance(rest, Mapping) else None)
        if below is None and not rest:
            lost.append(f"{path}.{key}")
            continue
        kept[key], missing = _known(item, below or {}, f"{path}.{key}")
        lost += missing
    return kept, lost
