"""A JobSet in, the pods that its controllers would make out: names, labels, environment, command. Pure.

Labels and environment are those of JobSet v0.12 and of the Job controller; only what a pod's fields or a value's
`$(NAME)` can refer to is here. It knows no file and starts nothing.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

JOBSET = "jobset.sigs.k8s.io"
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
LOOPBACK = "127.0.0.1"

Objects = Mapping[tuple[str, str], Mapping[str, bytes]]
"""(kind, name) of a ConfigMap or Secret to its keys."""


class LocalError(Exception):
    """What cannot run here, in the words of the user's file: path, value, way out."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a JobSet. `index` is its process index, `host_name` its name in DNS below the subdomain."""

    index: int
    job_index: int
    completion_index: int
    host_name: str
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def container(self) -> Mapping[str, Any]:
        container: Mapping[str, Any] = self.spec["containers"][0]
        return container


def pods_of(job_set: Mapping[str, Any], attempt: int) -> tuple[Pod, ...]:
    """The pods of one attempt, in the order of their process index: job by job, completion by completion."""
    (replicated,) = job_set["spec"]["replicatedJobs"]
    hosts = replicated["template"]["spec"]["completions"]
    return tuple(
        _pod(job_set, replicated, attempt, job_index, completion_index, index=job_index * hosts + completion_index)
        for job_index in range(replicated["replicas"])
        for completion_index in range(hosts)
    )


def _pod(
    job_set: Mapping[str, Any], replicated: Mapping[str, Any], attempt: int, job: int, completion: int, index: int
) -> Pod:
    template = replicated["template"]["spec"]["template"]
    name, namespace = job_set["metadata"]["name"], job_set["metadata"].get("namespace", "default")
    job_name = f"{name}-{replicated['name']}-{job}"
    both = _jobset_labels(job_set, replicated, attempt, job) | {COMPLETION_INDEX: str(completion)}
    both[f"{JOBSET}/job-key"] = hashlib.sha1(f"{namespace}/{job_name}".encode(), usedforsecurity=False).hexdigest()
    return Pod(
        index=index,
        job_index=job,
        completion_index=completion,
        host_name=f"{job_name}-{completion}",
        namespace=namespace,
        labels=template["metadata"].get("labels", {}) | both | {"batch.kubernetes.io/job-name": job_name},
        annotations=template["metadata"].get("annotations", {}) | both,
        spec=template["spec"],
    )


def _jobset_labels(job_set: Mapping[str, Any], replicated: Mapping[str, Any], attempt: int, job: int) -> dict[str, str]:
    name, subdomain = job_set["metadata"]["name"], job_set["spec"]["network"]["subdomain"]
    values = {
        "jobset-name": name,
        "replicatedjob-name": replicated["name"],
        "replicatedjob-replicas": replicated["replicas"],
        "global-replicas": replicated["replicas"],
        "job-index": job,
        "job-global-index": job,
        "restart-attempt": attempt,
        "coordinator": f"{name}-{replicated['name']}-0-0.{subdomain}",
    }
    return {f"{JOBSET}/{key}": str(value) for key, value in values.items()}


def environment_of(pod: Pod, objects: Objects, shell: Mapping[str, str]) -> dict[str, str]:
    """The container's environment as the kubelet would make it. Raises LocalError where a source is not at hand.

    A variable that comes from a Secret may come from the variable of that name in the user's shell instead.
    """
    values = {"JOB_COMPLETION_INDEX": str(pod.completion_index)}
    for number, source in enumerate(pod.container.get("envFrom", [])):
        values |= _whole_object(source, objects, path=f"spec.envFrom[{number}]")
    for variable in pod.container.get("env", []):
        value = _variable(pod, variable, objects, shell, known=values)
        if value is not None:
            values[variable["name"]] = value
    return values


def _whole_object(source: Mapping[str, Any], objects: Objects, path: str) -> dict[str, str]:
    kind = "ConfigMap" if "configMapRef" in source else "Secret"
    reference = source.get("configMapRef") or source["secretRef"]
    keys = objects.get((kind, reference["name"]))
    if keys is None and not reference.get("optional"):
        raise LocalError(f"{path}: {kind} {reference['name']} is not at hand; add it to the file as another document")
    return {source.get("prefix", "") + key: value.decode() for key, value in (keys or {}).items()}


def _variable(
    pod: Pod, variable: Mapping[str, Any], objects: Objects, shell: Mapping[str, str], known: Mapping[str, str]
) -> str | None:
    name, source = variable["name"], variable.get("valueFrom")
    if not source:
        return expand(variable.get("value", ""), known)
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"])
    kinds = {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}
    for reference in kinds.keys() & source.keys():
        return _key(name, kinds[reference], source[reference], objects, shell)
    raise LocalError(f"spec.env: {name} has a source that only a cluster knows; set a value for a local run")


def _key(name: str, kind: str, reference: Mapping[str, Any], objects: Objects, shell: Mapping[str, str]) -> str | None:
    keys = objects.get((kind, reference["name"]), {})
    if reference["key"] in keys:
        return keys[reference["key"]].decode()
    if name not in shell and not reference.get("optional"):
        where = f"key {reference['key']} of {kind} {reference['name']}"
        raise LocalError(f"spec.env: {name} comes from {where}, which is not at hand; set {name} in your shell")
    return shell.get(name)


def field(pod: Pod, path: str) -> str:
    """A value of the downward API (https://kubernetes.io/docs/concepts/workloads/pods/downward-api/)."""
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        values = pod.labels if keyed[1] == "labels" else pod.annotations
        return values.get(keyed[2], "")
    values = {
        "metadata.name": pod.host_name,
        "metadata.namespace": pod.namespace,
        "spec.nodeName": "localhost",
        "spec.serviceAccountName": pod.spec.get("serviceAccountName", "default"),
        "status.hostIP": LOOPBACK,
        "status.podIP": LOOPBACK,
    }
    if path not in values:
        raise LocalError(f"spec.env: the field {path} is known in a cluster only; set a value for a local run")
    return values[path]


def expand(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` by its value and `$$` by `$`; an unknown name stays as it is written, as in Kubernetes."""
    return re.sub(
        r"\$(?:\$|\(([^)]*)\))", lambda found: "$" if found[1] is None else known.get(found[1], found[0]), text
    )


def on_loopback(text: str, subdomain: str, ports: Mapping[int, int]) -> str:
    """DNS names below the JobSet's subdomain as this machine's loopback, and a pod's port as the free one for it."""

    def address(found: re.Match[str]) -> str:
        port = found[1] and int(found[1][1:])
        return LOOPBACK + (f":{ports.get(port, port)}" if port else "")

    return re.sub(rf"\b[a-z][-a-z0-9]*\.{re.escape(subdomain)}\b(:\d+)?", address, text)
