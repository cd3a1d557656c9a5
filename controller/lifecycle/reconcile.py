"""Station 4, decide: one job as it is observed in, what is done about it and what its status says out. Pure.

Level-triggered: all that is decided follows from the objects and the stored status, so any pass may be the first of a
new process. It refuses to know an API server, a clock, and what an earlier pass did beyond what the status says.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from controller.grpojob import GRPOJob, read_job
from controller.lifecycle import attempts as judge
from controller.lifecycle import frozen, waiting
from controller.lifecycle.accepted import as_accepted, changed, shown
from controller.lifecycle.conditions import TYPES, Observation, Reason, condition, holds, lay_over, phase_of, says
from controller.lifecycle.deadlines import active_left, back_off_left, kept_left, startup_left
from controller.lifecycle.decision import Decision, Delete, delete_job_set, events_between
from controller.lifecycle.observed import Body, Observed, format_time, is_going
from controller.lifecycle.progressing import checkpointed, observe_progress, progressed, stalled
from controller.render import Manifests
from controller.resolve import Resolved, machine_in_short, resolve
from controller.settings import Settings
from controller.statustypes import GRPOJobStatus
from trainer.contract.runfolder import RUN_ID_LENGTH

CRD_SECONDS = 15.0
RETRY_SECONDS = 30.0
"""How often a thing is looked at that only somebody else can change, and of which no watch tells."""
INSTALL_JOB_SET = (
    "kubectl apply --server-side -f https://github.com/kubernetes-sigs/jobset/releases/download/v0.12.0/manifests.yaml"
)


def read_status(job: Any) -> GRPOJobStatus:
    """The stored status, fields of later versions included."""
    return GRPOJobStatus.model_validate_json(json.dumps(job.get("status") or {}))


def is_finished(status: GRPOJobStatus) -> bool:
    return holds(status, "Succeeded") or holds(status, "Failed")


def reconcile(observed: Observed, settings: Settings) -> Decision:
    """What is to be done now about one job."""
    if is_going(observed.job):
        return Decision()  # what it owns goes with it
    status = read_status(observed.job)
    if is_finished(status):
        return _after_the_end(observed, status)
    return _Pass(observed, settings, status).decide()


def _after_the_end(observed: Observed, status: GRPOJobStatus) -> Decision:
    """Nothing is made again. What still runs of a failed job is stopped; after its time the job is deleted."""
    job_set, deletes = observed.job_set, []
    if job_set is not None and not observed.terminal and not is_going(job_set):
        deletes.append(delete_job_set(job_set))
    left = kept_left(observed, read_job(observed.job).spec.lifecycle, status)
    if left is not None and left <= 0:
        deletes = [Delete("GRPOJob", observed.job["metadata"]["name"], observed.uid)]
    return Decision(deletes=tuple(deletes), requeue_after=left if left is not None and left > 0 else None)


@dataclass
class _End:
    reason: Reason
    message: str


@dataclass
class _Pass:
    """One decision in the making. `attempts` is the ledger as it becomes; `release` asks for the JobSet's deletion."""

    observed: Observed
    settings: Settings
    old: GRPOJobStatus
    seen: list[Observation] = field(default_factory=list)
    creates: list[dict[str, Any]] = field(default_factory=list)
    deletes: list[Delete] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    release: bool = False

    def __post_init__(self) -> None:
        self.attempts = self.old.attempts
        self.job: GRPOJob = read_job(self.observed.job)
        self.manifests: Manifests | None = None

    @property
    def now(self) -> str:
        return format_time(self.observed.now)

    def decide(self) -> Decision:
        end = self._accept() or self._judge() or self._expire()
        if end is None:
            self._go_on()
        else:
            self._finish(end)
        status = self._status()
        return Decision(
            tuple(self.creates),
            status if status.to_dict() != self.old.to_dict() else None,
            events_between(self.old, status),
            tuple(self.deletes),
            min(self.again, default=None),
        )

    # --- what it was accepted as

    def _accept(self) -> _End | None:
        """What the job was frozen as, or whether it may be."""
        if self.observed.frozen is not None:
            self._compare(self.observed.frozen)
            self._remember(self.observed.frozen)
            return None
        if self.old.run_config_name:
            running = self.observed.job_set is not None and waiting.running(self.observed).status == "True"
            name = self.old.run_config_name
            return None if running else _End(Reason.FROZEN_CONFIG_LOST, f"ConfigMap {name} is gone")
        outcome = resolve(self.job)
        if outcome.resolved is None:
            told = "\n".join(str(violation) for violation in outcome.violations)
            self.seen.append(Observation("Validated", "False", Reason.INVALID_SPEC, told))
            return _End(Reason.INVALID_SPEC, told)
        self._render(outcome.resolved)
        return None

    def _compare(self, config_map: Body) -> None:
        """The job counts as what it was accepted as; what was changed of it since is told, and not taken."""
        if condition(self.old, "Validated") is None:
            self.seen.append(Observation("Validated", "True", Reason.ACCEPTED))
        counts = as_accepted(self.observed.job, config_map)
        if paths := changed(self.observed.job, counts):
            self.job = read_job(counts)
            text = f"{shown(paths)}: changed after the job was accepted, and not taken: it goes on as it was accepted"
            self.seen.append(Observation("Validated", "True", Reason.SPEC_CHANGED, text))
        elif counts is not self.observed.job and says(self.old, "Validated", Reason.SPEC_CHANGED):
            self.seen.append(Observation("Validated", "True", Reason.ACCEPTED))

    def _render(self, resolved: Resolved) -> None:
        """What will be frozen, once it is known which JobSet is installed."""
        told = [f"warning: {warning}" for warning in resolved.warnings]
        if (schema := self.observed.job_set_schema) is not None:
            namespace = self.observed.job["metadata"]["namespace"]
            self.manifests, unknown = frozen.freeze(
                resolved, self.observed.job["spec"], self.settings, self.observed.uid, namespace, schema
            )
            told += [f"the installed JobSet has no {path}: it is left out" for path in unknown]
        self.seen.append(Observation("Validated", "True", Reason.ACCEPTED, "\n".join([Reason.ACCEPTED.meaning, *told])))

    def _frozen(self) -> Body:
        """The ConfigMap that is there, or the one that is created now."""
        if self.observed.frozen is not None:
            return self.observed.frozen
        if self.manifests is None:
            raise ValueError("a job without a frozen ConfigMap was not rendered")
        self.creates.append(self.manifests.config_map)
        self._remember(self.manifests.config_map)
        return self.manifests.config_map

    def _remember(self, config_map: Body) -> None:
        name = config_map["metadata"]["name"]
        if self.old.run_config_name == name and self.old.plan is not None:
            return
        self.changes |= {
            "run_config_name": name,
            "job_set_name": self.observed.job["metadata"]["name"],
            "run_id": self.observed.uid[:RUN_ID_LENGTH],
            "devices": machine_in_short(self.job),
            "plan": frozen.plan_of(config_map),
            "output_uri": frozen.output_of(config_map),
        }

    # --- how it fares

    def _judge(self) -> _End | None:
        """Bring the ledger up to date. A JobSet that is not there is nobody's where JobSets are not known."""
        observed = self.observed
        if observed.job_set_schema is None:
            return None
        self._follow()
        if observed.terminal == "Completed":
            self.attempts = judge.settled(observed, self.attempts)
            return _End(Reason.COMPLETED, "every process ended with exit code 0")
        if observed.job_set is not None and self.attempts.released != observed.job_set_uid:
            self._see_eviction()
            self.attempts = judge.settled(observed, self.attempts)
            self._see_stillness()
            self.release = self.attempts.judged > observed.restart
        restart = self.job.spec.restart
        spent = judge.verdict(self.attempts, restart.max_restarts, restart.max_disruptions)
        return _End(*spent) if spent else None

    def _follow(self) -> None:
        """From one JobSet to the next: who is gone without having been released was deleted by somebody else."""
        attempts, uid = self.attempts, self.observed.job_set_uid
        if attempts.job_set_uid == uid:
            return
        if attempts.job_set_uid is not None and attempts.released != attempts.job_set_uid:
            gone, restart = attempts.job_set_uid, attempts.judged
            lost = judge.made(Reason.JOB_SET_DELETED, gone, restart)
            known = judge.judged(self.observed.pods_of(restart, gone), attempts.ending, gone, restart)
            worse = judge.rank(judge.reason_in(known)) < judge.rank(Reason.PREEMPTED)
            attempts = judge.counted(attempts, known if worse else lost, self.now)
            attempts = attempts.model_copy(update={"before": attempts.before + restart + 1})
        update = {"job_set_uid": uid, "judged": 0, "ending": None, "released": None}
        self.attempts = attempts.model_copy(update=update)

    def _see_eviction(self) -> None:
        """Kueue takes back what it gave: the stored status says that it was given."""
        observed = self.observed
        if observed.held and holds(self.old, "Admitted") and observed.job_set_uid == self.old.attempts.job_set_uid:
            told = waiting.eviction(observed)
            uid = str(observed.job_set_uid)
            self.attempts = judge.evicted(self.attempts, uid, observed.restart, told, self.now)

    def _see_stillness(self) -> None:
        """What does not start in time, or stands still for too long, is given up and begun anew."""
        observed, uid = self.observed, str(self.observed.job_set_uid)
        if observed.terminal or observed.held or self.attempts.judged > observed.restart:
            return
        left = startup_left(observed, self.job.spec.lifecycle, self.attempts)
        if left is not None and left <= 0:
            told = f"{waiting.provision(observed).message}; {waiting.running(observed).message}"
            late = judge.made(Reason.STARTUP_DEADLINE, uid, observed.restart, message=told)
            self.attempts = judge.counted(self.attempts, late, self.now)
        elif left is not None:
            self.again.append(left)
        elif (told_still := stalled(observed, self.job)) is not None:
            still = judge.made(Reason.STALLED, uid, observed.restart, message=told_still)
            self.attempts = judge.counted(self.attempts, still, self.now)

    def _expire(self) -> _End | None:
        """The job's own deadline; a suspended job has time to stand still."""
        lifecycle = self.job.spec.lifecycle
        left = None if self.job.spec.suspend else active_left(self.observed, lifecycle, self.old)
        if left is None or left > 0:
            self.again += [left] if left is not None else []
            return None
        deadline = lifecycle.active_deadline_seconds
        told = f"lifecycle.activeDeadlineSeconds = {deadline} have passed since {self.old.start_time}"
        return _End(Reason.DEADLINE, told)

    # --- what is done

    def _finish(self, end: _End) -> None:
        """A terminal condition, for ever. What still runs is stopped once the status says why."""
        succeeded = end.reason is Reason.COMPLETED
        self.changes["completion_time"] = self.now
        for kind in TYPES[1:7]:
            self.seen.append(Observation(kind, "False", Reason.FINISHED))
        not_taken = "not accepted" if end.reason is Reason.INVALID_SPEC else end.message
        self.seen.append(Observation("Succeeded", "True" if succeeded else "False", end.reason, not_taken))
        self.seen.append(Observation("Failed", "False" if succeeded else "True", end.reason, end.message))
        job_set = self.observed.job_set
        if job_set is not None and not self.observed.terminal and not is_going(job_set):
            self.deletes.append(delete_job_set(job_set))

    def _go_on(self) -> None:
        self.seen += [
            Observation("Succeeded", "Unknown", Reason.NOT_FINISHED),
            Observation("Failed", "False", Reason.NOT_FINISHED),
        ]
        job_set = self.observed.job_set
        if self.observed.job_set_schema is None:
            self._wait(Reason.JOB_SET_MISSING, f"no JobSet in this cluster; install it: {INSTALL_JOB_SET}", CRD_SECONDS)
        elif self.job.spec.suspend:
            self._suspend()
        elif job_set is not None and (self.release or self.attempts.released == self.observed.job_set_uid):
            self._release()
            self._describe_restart()
        elif job_set is not None:
            self._describe()
        else:
            self._create()

    def _wait(self, reason: Reason, message: str, seconds: float) -> None:
        self.again.append(seconds)
        self._idle(Observation("Provisioned", "False", reason, message))

    def _idle(self, provisioned: Observation, *, suspended: bool = False) -> None:
        """No pod of this job is there, or none that matters any more."""
        queue = self.job.spec.queue
        self.seen += [
            waiting.admission(self.observed, queue.local_queue if queue else None),
            provisioned,
            Observation("Running", "False", Reason.NOT_RUNNING),
            Observation("Progressing", "Unknown", Reason.NOT_RUNNING),
            Observation("Suspended", "True", Reason.SUSPENDED)
            if suspended
            else Observation("Suspended", "False", Reason.NOT_SUSPENDED),
        ]
        if not any(one.type == "Restarting" for one in self.seen):
            self.seen.append(Observation("Restarting", "False", Reason.NOT_RESTARTING))

    def _suspend(self) -> None:
        if self.observed.refusal:
            return self._wait(Reason.REFUSED, self.observed.refusal, RETRY_SECONDS)
        self._frozen()
        self.changes["start_time"] = None
        self._release()
        text = "pods are saving and ending" if self.observed.job_set is not None else "no pod is left"
        return self._idle(Observation("Provisioned", "False", Reason.SUSPENDED, text), suspended=True)

    def _release(self) -> None:
        """Delete the JobSet on purpose: first the status says so, so that nobody counts it as lost."""
        job_set = self.observed.job_set
        if job_set is None:
            return
        if self.attempts.released != self.observed.job_set_uid:
            before = self.attempts.before + self.observed.restart + 1
            update = {"released": self.observed.job_set_uid, "before": before, "ending": None}
            self.attempts = self.attempts.model_copy(update=update)
        if not is_going(job_set):
            self.deletes.append(delete_job_set(job_set))

    def _describe_restart(self) -> None:
        last = next(iter(reversed(self.attempts.last)), None)
        told = judge.explained(last) if last else ""
        self.seen.append(Observation("Restarting", "True", Reason.RESTARTING, told))
        self._idle(Observation("Provisioned", "False", Reason.STARTING, "the pods before are ending"))

    def _create(self) -> None:
        observed = self.observed
        if observed.taken:
            return self._wait(Reason.NAME_TAKEN, observed.taken, RETRY_SECONDS)
        if observed.refusal:
            return self._wait(Reason.REFUSED, observed.refusal, RETRY_SECONDS)
        wait = back_off_left(observed, self.attempts)
        if wait > 0:
            return self._wait(Reason.BACKING_OFF, judge.explained(self.attempts.last[-1]), wait)
        config_map = self._frozen()
        self.creates.append(frozen.posted(config_map, self.job.spec.queue, self.attempts.before))
        if self.job.spec.queue is None and self.old.start_time is None:
            self.changes["start_time"] = self.now
        return self._idle(Observation("Provisioned", "False", Reason.STARTING))

    def _describe(self) -> None:
        """The JobSet is there and is let be: the status tells how it stands."""
        observed, queue = self.observed, self.job.spec.queue
        admitted = waiting.admission(observed, queue.local_queue if queue else None)
        if observed.held:
            return self._idle(Observation("Provisioned", "False", Reason.QUEUED, admitted.message))
        if self.old.start_time is None:
            self.changes["start_time"] = self.now
        runs = waiting.running(observed)
        progress = observe_progress(observed, self.job, runs.status == "True")
        self.again += progress.again
        self.changes |= progressed(observed, self.old) | checkpointed(observed)
        self.seen += [
            admitted,
            waiting.provision(observed),
            runs,
            progress.observation,
            Observation("Suspended", "False", Reason.NOT_SUSPENDED),
            self._restarting(runs.status == "True"),
        ]
        return None

    def _restarting(self, runs: bool) -> Observation:
        """From the first failed pod until every pod of the next attempt runs."""
        attempts = self.attempts
        if attempts.ending is not None:
            return Observation("Restarting", "True", Reason.RESTARTING, judge.explained(attempts.ending))
        if not runs and attempts.before + self.observed.restart > 0 and attempts.last:
            return Observation("Restarting", "True", Reason.RESTARTING, judge.explained(attempts.last[-1]))
        return Observation("Restarting", "False", Reason.NOT_RESTARTING)

    def _status(self) -> GRPOJobStatus:
        generation = int(self.observed.job["metadata"].get("generation") or 0)
        conditions = lay_over(self.old.conditions, self.seen, generation, self.now)
        update = self.changes | {
            "observed_generation": generation,
            "conditions": conditions,
            "phase": phase_of(conditions),
            "attempts": self.attempts,
        }
        return self.old.model_copy(update=update)
