"""What is watched, and which job a change is about; with it the last states of pods that are gone.

In: changes that reflectors bring. Out: keys of jobs, and each job's objects. It decides nothing and asks nobody.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from controller import names
from controller.cluster import trimmed
from controller.cluster.resources import CONFIG_MAPS, GRPOJOBS, JOB_SETS, PODS
from controller.lifecycle.observed import Body, Pod, controller_uid
from controller.runtime.client import Api, Resource
from controller.runtime.reflector import Reflector
from controller.runtime.store import Store, key_of
from controller.statustypes import AttemptsStatus

OURS = "app.kubernetes.io/managed-by=grpo-operator"
BY_JOB, BY_OWNER = "job", "owner"
Json = dict[str, Any]


def job_key(body: Body) -> str | None:
    """The job that one of its objects is labelled with."""
    name = (body["metadata"].get("labels") or {}).get(names.LABEL_JOB)
    return f"{body['metadata']['namespace']}/{name}" if name else None


def _by_job(body: Json) -> Iterator[str]:
    if (key := job_key(body)) is not None:
        yield key


def _by_owner(body: Json) -> Iterator[str]:
    if (uid := controller_uid(body)) is not None:
        yield uid


class Watching:
    """Stores of all that belongs to jobs. `changed(key)` is called for every job that a change may concern, `gone(uid)`
    for one that is deleted. Without `namespaces` the whole cluster is watched.
    """

    def __init__(
        self,
        changed: Callable[[str], None],
        gone: Callable[[str], None] = lambda uid: None,
        namespaces: Sequence[str] = (),
    ) -> None:
        self._changed, self._job_gone, self._namespaces = changed, gone, namespaces
        self.jobs = Store({}, namespaces)
        self.job_sets = Store({}, namespaces)
        self.pods = Store({BY_JOB: _by_job}, namespaces)
        self.config_maps = Store({BY_OWNER: _by_owner}, namespaces)
        self.workloads = Store({BY_OWNER: _by_owner}, namespaces)
        self._lock = threading.Lock()
        self._gone: dict[str, dict[str, Pod]] = defaultdict(dict)
        self._void: dict[str, set[str]] = defaultdict(set)

    def reflectors(self, api: Api) -> list[Reflector]:
        """One for each kind that every cluster with JobSet has, and each namespace; not started."""
        return [reflector for namespace in self._namespaces or (None,) for reflector in self._ours(api, namespace)]

    def workload_reflectors(self, api: Api, resource: Resource) -> list[Reflector]:
        """For clusters with Kueue."""
        found, see = self.workloads, self._see_workload
        return [
            Reflector(api, resource, found, see, namespace, transform=trimmed.workload)
            for namespace in self._namespaces or (None,)
        ]

    def _ours(self, api: Api, namespace: str | None) -> list[Reflector]:
        labels, maps = names.LABEL_JOB, trimmed.config_map
        job_sets = Reflector(
            api,
            JOB_SETS,
            self.job_sets,
            self._see_named,
            namespace,
            transform=trimmed.job_set,
            on_presence=self._see_presence,
        )
        return [
            Reflector(api, GRPOJOBS, self.jobs, self._see_job, namespace, transform=trimmed.job),
            job_sets,
            Reflector(api, PODS, self.pods, self._see_pod, namespace, labels, transform=trimmed.pod),
            Reflector(api, CONFIG_MAPS, self.config_maps, self._see_labelled, namespace, OURS, transform=maps),
        ]

    @property
    def stores(self) -> tuple[Store, ...]:
        """What must be known before anything is decided; Kueue's may never be."""
        return self.jobs, self.job_sets, self.pods, self.config_maps

    def put(self, kind: str, body: Json) -> None:
        """The answer to a write of ours, before the watch brings it."""
        store, transform = {
            GRPOJOBS.kind: (self.jobs, trimmed.job),
            JOB_SETS.kind: (self.job_sets, trimmed.job_set),
            CONFIG_MAPS.kind: (self.config_maps, trimmed.config_map),
        }[kind]
        store.put(transform(body))

    # --- what a job has

    def pods_of(self, key: str, *, held: bool) -> tuple[Pod, ...]:
        """All pods of a job that are not judged yet, those that are gone as they were last seen.

        While Kueue holds the JobSet its pods are stopped, and what they end with says nothing, then or later.
        """
        alive = [Pod.of(body) for body in self.pods.by(BY_JOB, key)]
        with self._lock:
            gone = self._gone.get(key, {})
            if held:
                self._void[key] |= {pod.uid for pod in alive} | gone.keys()
            void = self._void.get(key, set())
            known = {pod.uid: pod for pod in (*gone.values(), *alive)}
            return tuple(pod for uid, pod in known.items() if uid not in void)

    def config_maps_of(self, uid: str) -> dict[str, Body]:
        """Those that the job owns, by name."""
        return {body["metadata"]["name"]: body for body in self.config_maps.by(BY_OWNER, uid)}

    def workload_of(self, job_set: Body | None) -> Body | None:
        uid = "" if job_set is None else job_set["metadata"]["uid"]
        return next(iter(self.workloads.by(BY_OWNER, uid)), None)

    def judged(self, key: str, attempts: AttemptsStatus) -> None:
        """A stored status has counted these attempts: what their pods ended with is needed no more."""
        with self._lock:
            if key in self._gone:
                current = attempts.job_set_uid
                self._gone[key] = {
                    uid: pod
                    for uid, pod in self._gone[key].items()
                    if pod.job_set_uid == current and pod.restart >= attempts.judged
                }

    def forget(self, key: str) -> None:
        """The job is gone."""
        with self._lock:
            self._gone.pop(key, None)
            self._void.pop(key, None)

    # --- what changes

    def _see_job(self, old: Json | None, new: Json | None) -> None:
        if new is None and old is not None:
            self._job_gone(old["metadata"]["uid"])
        self._see_named(old, new)

    def _see_named(self, old: Json | None, new: Json | None) -> None:
        """A job, or a JobSet by its own name: a foreign one that goes away frees the name of a job."""
        self._changed(key_of(new or old or {}))

    def _see_labelled(self, old: Json | None, new: Json | None) -> None:
        if (key := job_key(new or old or {})) is not None:
            self._changed(key)

    def _see_workload(self, old: Json | None, new: Json | None) -> None:
        body = new or old or {}
        for owner in body["metadata"].get("ownerReferences") or ():
            if owner["kind"] == JOB_SETS.kind:
                self._changed(f"{body['metadata']['namespace']}/{owner['name']}")

    def _see_pod(self, old: Json | None, new: Json | None) -> None:
        if new is None and old is not None and (key := job_key(old)) is not None:
            pod = Pod.of(old, gone=True)
            with self._lock:
                self._gone[key][pod.uid] = pod
        self._see_labelled(old, new)

    def _see_presence(self, present: bool) -> None:
        """JobSet was installed, or taken away: that concerns every job."""
        for key in self.jobs.keys():  # noqa: SIM118 - a store is no mapping
            self._changed(key)
