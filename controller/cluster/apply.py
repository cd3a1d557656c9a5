"""Station 5, apply: one job's objects out of the stores into a decision, and the decision to the API server.

Creates, then one status, then events, then deletions; each only where there is something to do. It holds no policy:
what is to be done is station 4's. What is remembered of pods that are gone may be lost at any time: the status then
decides alone.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from controller import names
from controller.cluster.installed import JobSetDefinition
from controller.cluster.resources import CONFIG_MAPS, EVENTS, GRPOJOBS, JOB_SETS
from controller.cluster.watching import Watching
from controller.lifecycle.conditions import Reason, says
from controller.lifecycle.decision import Decision, Delete, Told
from controller.lifecycle.frozen import config_name_in
from controller.lifecycle.observed import Body, Observed, Pod, Report, controller_uid
from controller.lifecycle.reconcile import is_finished, read_status, reconcile
from controller.lifecycle.waiting import wait_notes
from controller.runtime.client import Api, ApiError
from controller.runtime.workers import Result
from controller.settings import Settings
from controller.statustypes import GRPOJobStatus

MANAGER = "grpo-operator"
NOTES_SECONDS = 30.0
FIRST_NOTES_SECONDS = 5.0
"""A pod that is placed and started at once is none to ask about."""
TELLING = ("NotTriggerScaleUp", "TriggeredScaleUp", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
"""Events of a pod that say what its status does not."""
SERVER_FAULT = 500
KINDS = {"ConfigMap": CONFIG_MAPS, "JobSet": JOB_SETS, names.KIND: GRPOJOBS}

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Who writes events; never blocks."""

    def event(self, regarding: dict[str, Any], kind: Told, reason: str, note: str, /) -> None:
        """After the status that it speaks of is stored."""


class Cluster:
    """`reconcile(key)` is one pass over the job `namespace/name`; one key at a time, keys in parallel.

    `reports(uid)` is what the trainer told last; `prepare(namespace)` makes what pods there need besides; `told(job,
    status)` hears of each status that was stored.
    """

    def __init__(
        self,
        api: Api,
        watching: Watching,
        settings: Settings,
        recorder: Recorder,
        reports: Callable[[str], Report | None] = lambda uid: None,
        prepare: Callable[[str], None] = lambda namespace: None,
        told: Callable[[Body, GRPOJobStatus], None] = lambda job, status: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api, self._watching, self._settings, self._recorder = api, watching, settings, recorder
        self._reports, self._prepare, self._told, self._now = reports, prepare, told, now
        self._definition = JobSetDefinition(api)
        self._notes: dict[str, tuple[float, tuple[str, ...]]] = {}

    def reconcile(self, key: str) -> Result:
        """See, decide, act. Raises ApiError where the API server did not do its part: the key comes again."""
        observed = self._gather(key)
        if observed is None:
            self._watching.forget(key)
            return Result(None)
        decision = self._decide(key, observed)
        self._tell(key, observed, decision)
        for deletion in decision.deletes:
            self._delete(observed, deletion)
        return Result(self._again(observed, decision))

    # --- see

    def _gather(self, key: str) -> Observed | None:
        """All that belongs to a job, None where it is no more. Stores hold our own writes before the watches do."""
        job = self._watching.jobs.get(key)
        if job is None:
            return None
        status, uid = read_status(job), job["metadata"]["uid"]
        schema = self._definition.schema()
        if schema is not None and not self._watching.job_sets.has_synced:
            raise ApiError(0, "NotSynced", "JobSets are not known yet")
        if is_finished(status):
            self._watching.forget(key)  # nothing is judged any more
        else:
            self._prepare(job["metadata"]["namespace"])
        job_set, taken = self._job_set(key, uid, status)
        frozen = self._frozen(key, job, status, job_set)
        observed = Observed(
            job=job,
            now=self._now(),
            job_set=job_set,
            pods=self._watching.pods_of(key, held=bool(job_set and job_set["spec"].get("suspend"))),
            frozen=frozen,
            workload=self._watching.workload_of(job_set),
            report=self._reports(uid),
            taken=taken,
            job_set_schema=self._definition.schema(),
        )
        return replace(observed, notes=self._notes_of(observed))

    def _job_set(self, key: str, uid: str, status: GRPOJobStatus) -> tuple[Body | None, str | None]:
        """Our JobSet, or whose the one of our name is. One that we had and do not see is asked for: a watch may lag."""
        found: Body | None = self._watching.job_sets.get(key)
        if found is None and status.attempts.job_set_uid and not is_finished(status):
            found = self._read("JobSet", key)
            if found is None:
                self._definition.look()
        if found is None or controller_uid(found) == uid:
            return found, None
        return None, f"{found['metadata']['name']} is the name of a JobSet that belongs to {_owner_of(found)}"

    def _frozen(self, key: str, job: Body, status: GRPOJobStatus, job_set: Body | None) -> Body | None:
        """The job's ConfigMap: of its status, of its JobSet, or any that it owns. Read where its content is needed."""
        if is_finished(status):
            return None
        name = status.run_config_name or (config_name_in(job_set) if job_set else None)
        known = self._watching.config_maps_of(job["metadata"]["uid"])
        name = name or min(known, default=None)
        if name is None:
            return None
        suspended = bool(job.get("spec", {}).get("suspend"))
        is_new = job["metadata"].get("generation") != status.observed_generation
        needed = status.plan is None or is_new or (job_set is None and not suspended)
        needed |= says(status, "Validated", Reason.SPEC_CHANGED)
        if name in known and not needed:
            return known[name]
        return self._read("ConfigMap", f"{key.partition('/')[0]}/{name}")

    def _read(self, kind: str, key: str) -> Body | None:
        namespace, _, name = key.partition("/")
        try:
            return self._api.get(KINDS[kind], name, namespace)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    def _notes_of(self, observed: Observed) -> tuple[str, ...]:
        """Events of the first pod that waits, looked at now and then."""
        waits = wait_notes(observed)
        if not waits:
            return ()
        pod, now = waits[0], time.monotonic()
        since, notes = self._notes.get(pod.uid, (None, ()))
        if since is None or now - since > NOTES_SECONDS:
            notes = self._list_notes(observed, pod) if since is not None else ()
            self._notes = {uid: seen for uid, seen in self._notes.items() if now - seen[0] < 4 * NOTES_SECONDS}
            self._notes[pod.uid] = (now if since is not None else now - NOTES_SECONDS + FIRST_NOTES_SECONDS, notes)
        return notes

    def _list_notes(self, observed: Observed, pod: Pod) -> tuple[str, ...]:
        namespace = observed.job["metadata"]["namespace"]
        found = self._api.list(EVENTS, namespace, field_selector=f"involvedObject.uid={pod.uid}", limit=100)["items"]
        found.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return tuple(f"{one['reason']}: {one.get('message', '')}" for one in found if one.get("reason") in TELLING)

    # --- act

    def _decide(self, key: str, observed: Observed) -> Decision:
        """The decision, its creates carried out; then what follows from it, so that one status tells it all."""
        decision = reconcile(observed, self._settings)
        try:
            made = self._make(observed, decision)
        except ApiError as error:
            if error.is_not_found:
                self._definition.look()
            if error.status == SERVER_FAULT:  # such as a dead webhook: the status says what is waited for
                self._tell(key, observed, reconcile(replace(observed, refusal=error.message), self._settings))
            if error.is_transient or error.is_conflict or error.is_not_found:
                raise
            return reconcile(replace(observed, refusal=error.message), self._settings)
        if decision.status is None:
            return decision
        seen = replace(
            observed,
            job={**observed.job, "status": decision.status.to_dict()},
            frozen=made.get("ConfigMap", observed.frozen),
            job_set=made.get("JobSet", observed.job_set),
        )
        return decision.and_then(reconcile(seen, self._settings))

    def _make(self, observed: Observed, decision: Decision) -> dict[str, Body]:
        return {body["kind"]: self._create(observed, body) for body in decision.creates}

    def _create(self, observed: Observed, body: dict[str, Any]) -> dict[str, Any]:
        kind, namespace = body["kind"], observed.job["metadata"]["namespace"]
        try:
            made = self._api.create(KINDS[kind], body, namespace, manager=MANAGER)
        except ApiError as error:
            if not error.already_exists:
                raise
            made = self._ours(kind, f"{namespace}/{body['metadata']['name']}", observed.uid)
        self._watching.put(kind, made)
        return made

    def _ours(self, kind: str, key: str, uid: str) -> dict[str, Any]:
        """An object that is there already: made by us and not seen yet, or somebody else's."""
        found = self._read(kind, key)
        if found is None:
            raise ApiError(0, "Vanished", f"{kind} {key} came and went")
        if controller_uid(found) != uid:
            raise ApiError(
                422, "Foreign", f"{kind} {key} is there and belongs to {_owner_of(found)}; it is not touched"
            )
        return dict(found)

    def _tell(self, key: str, observed: Observed, decision: Decision) -> None:
        self._write_status(key, observed, decision)
        for event in decision.events:
            self._recorder.event(dict(observed.job), event.type, event.reason, event.note)

    def _write_status(self, key: str, observed: Observed, decision: Decision) -> None:
        if decision.status is None:
            return
        body = dict(observed.job) | {"status": decision.status.to_dict()}
        namespace = observed.job["metadata"]["namespace"]
        written = self._api.replace(GRPOJOBS, body, namespace, subresource="status", manager=MANAGER)
        self._watching.put(names.KIND, written)
        self._watching.judged(key, decision.status.attempts)
        self._told(observed.job, decision.status)

    def _delete(self, observed: Observed, deletion: Delete) -> None:
        namespace = observed.job["metadata"]["namespace"]
        try:
            left = self._api.delete(KINDS[deletion.kind], deletion.name, namespace, uid=deletion.uid)
        except ApiError as error:
            # Gone, or another by now: the watches will tell.
            if error.is_not_found or error.is_conflict:
                return
            raise
        if left.get("kind") == deletion.kind:
            self._watching.put(deletion.kind, left)

    def _again(self, observed: Observed, decision: Decision) -> float | None:
        times = [decision.requeue_after] if decision.requeue_after is not None else []
        if waits := wait_notes(observed):
            since, _ = self._notes.get(waits[0].uid, (time.monotonic(), ()))
            times.append(max(0.1, since + NOTES_SECONDS + 0.1 - time.monotonic()))
        return min(times, default=None)


def _owner_of(body: Body) -> str:
    owners = body["metadata"].get("ownerReferences") or ()
    return next((f"{one['kind']} {one['name']} ({one['uid']})" for one in owners), "nobody")
