"""Objects as an API server holds them, for the pure half of the controller: a job, its JobSet, its pods."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.lifecycle.decision import Decision
from controller.lifecycle.observed import Observed, Pod, Report, format_time
from controller.lifecycle.reconcile import reconcile
from controller.settings import Settings
from trainer.contract.exits import Cause, ExitCode

UID = "0f4b6a1e-8d7c-4f0e-9a51-3c2d1e0f9a8b"
START = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)
SETTINGS = Settings()
SCHEMA = {"x-kubernetes-preserve-unknown-fields": True}


def job_of(**spec: Any) -> dict[str, Any]:
    """A valid job on two CPU hosts."""
    return {
        "apiVersion": "grpo.dev/v1alpha1",
        "kind": "GRPOJob",
        "metadata": {"name": "demo", "namespace": "team", "uid": UID, "generation": 1, "resourceVersion": "1"},
        "spec": {
            "modelPath": "Qwen/Qwen2.5-0.5B-Instruct",
            "cpu": {"hosts": 2, "devicesPerHost": 1},
            "rollout": {"perDeviceBatchSize": 2},
            **spec,
        },
    }


def cause(code: int, message: str = "it broke", step: int | None = 3) -> str:
    return Cause(ExitCode(code), 0, step, "ValueError", message).to_json()


def pod(host: int = 0, restart: int = 0, uid: str = "js-1", **changes: Any) -> Pod:
    """A pod that runs."""
    name = f"demo-slice-0-{host}-{restart}"
    running = Pod(
        name=name,
        uid=f"{uid}-{name}",
        job_set_uid=uid,
        restart=restart,
        slice_index=0,
        host_index=host,
        phase="Running",
        gone=False,
        asked=False,
        scheduled=True,
        disruption=None,
        exit_code=None,
        ended_as="",
        message="",
        waiting="",
        ended_at="",
        unschedulable="",
    )
    return replace(running, **changes)


def ended(code: int, host: int = 0, restart: int = 0, at: str = "2026-11-24T08:01:00Z", **changes: Any) -> Pod:
    """A pod that ended with an exit code of the contract, and its cause, or with another one and no word."""
    known = code in [int(one) for one in ExitCode] and code != 0
    phase = "Succeeded" if code == 0 else "Failed"
    message = cause(code) if known else ""
    given = {"phase": phase, "exit_code": code, "message": message, "ended_at": at} | changes
    return pod(host, restart, **given)


@dataclass
class Cluster:
    """What a controller would see, and a controller that carries its decisions out at once."""

    job: dict[str, Any]
    now: datetime = START
    job_set: dict[str, Any] | None = None
    frozen: dict[str, Any] | None = None
    pods: list[Pod] = field(default_factory=list)
    report: Report | None = None
    workload: dict[str, Any] | None = None
    schema: dict[str, Any] | None = field(default_factory=lambda: dict(SCHEMA))
    deleted: bool = False
    made: int = 0

    def seen(self, **changes: Any) -> Observed:
        observed = Observed(
            job=self.job,
            now=self.now,
            job_set=self.job_set,
            pods=tuple(self.pods),
            frozen=self.frozen,
            workload=self.workload,
            report=self.report,
            job_set_schema=self.schema,
        )
        return replace(observed, **changes)

    def step(self, **changes: Any) -> Decision:
        """One pass: decided and carried out."""
        decision = reconcile(self.seen(**changes), SETTINGS)
        self.create(decision)
        if decision.status is not None:
            self.job = self.job | {"status": decision.status.to_dict()}
        self.delete(decision)
        return decision

    def settle(self) -> None:
        """Passes until nothing changes. Fails where that takes more than ten."""
        for _ in range(10):
            before = json.dumps([self.job, self.job_set, self.frozen], sort_keys=True)
            self.step()
            if before == json.dumps([self.job, self.job_set, self.frozen], sort_keys=True):
                return
        raise AssertionError("it does not settle")

    def create(self, decision: Decision) -> None:
        for body in decision.creates:
            if body["kind"] == "ConfigMap":
                self.frozen = body
            else:
                assert self.job_set is None, "two JobSets"
                self.made += 1
                identity = {"uid": f"js-{self.made}", "creationTimestamp": format_time(self.now)}
                self.job_set = body | {"metadata": body["metadata"] | identity, "status": {}}

    def delete(self, decision: Decision) -> None:
        for deletion in decision.deletes:
            if deletion.kind == "GRPOJob":
                self.deleted = True
            elif self.job_set is not None and deletion.uid == self.job_set["metadata"]["uid"]:
                self.job_set = None
                self.pods = []

    # --- what others do

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def set_job_set(self, **status: Any) -> None:
        assert self.job_set is not None
        self.job_set = self.job_set | {"status": self.job_set["status"] | status}

    def run(self, restart: int = 0) -> None:
        """Both pods of an attempt run."""
        assert self.job_set is not None
        uid = self.job_set["metadata"]["uid"]
        self.pods = [pod(0, restart, uid), pod(1, restart, uid)]

    def restart_with(self, *pods: Pod) -> None:
        """The JobSet gives an attempt up: its pods ended so, and the next attempt's run."""
        assert self.job_set is not None
        uid, restart = self.job_set["metadata"]["uid"], self.job_set["status"].get("restarts", 0)
        old = [replace(one, job_set_uid=uid, restart=restart, gone=True) for one in pods]
        self.set_job_set(restarts=restart + 1)
        self.pods = [*old, pod(0, restart + 1, uid), pod(1, restart + 1, uid)]

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.job.get("status", {})
        return found

    @property
    def attempts(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status["attempts"]
        return found

    def condition(self, kind: str) -> tuple[str, str]:
        return next((one["status"], one["reason"]) for one in self.status["conditions"] if one["type"] == kind)

    def message(self, kind: str) -> str:
        return next(str(one["message"]) for one in self.status["conditions"] if one["type"] == kind)


def started(**spec: Any) -> Cluster:
    """A job whose pods run."""
    cluster = Cluster(job_of(**spec))
    cluster.settle()
    cluster.run()
    cluster.settle()
    return cluster
