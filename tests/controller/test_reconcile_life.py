"""What the controller does with a job from its first sight to its end; no cluster, plain objects."""

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.lifecycle.conditions import TYPES
from controller.lifecycle.reconcile import reconcile
from controller.settings import Settings
from tests.controller.observing import SETTINGS, START, UID, Cluster, job_of, pod, started


def test_the_first_pass_does_all_up_to_the_job_set() -> None:
    """One create per child and one status, which names both, with every condition and the plan."""
    cluster = Cluster(job_of())
    decision = cluster.step()
    assert [body["kind"] for body in decision.creates] == ["ConfigMap", "JobSet"]
    assert cluster.status["runConfigName"] == decision.creates[0]["metadata"]["name"]
    assert cluster.status["jobSetName"] == "demo"
    assert cluster.status["runId"] == UID[:8]
    assert cluster.status["plan"]["processes"] == 2
    assert cluster.status["devices"].startswith("cpu 2x")
    assert cluster.status["phase"] == "Starting"
    assert [one["type"] for one in cluster.status["conditions"]] == list(TYPES)
    assert cluster.condition("Validated") == ("True", "Accepted")


def test_what_did_not_change_is_not_written() -> None:
    """A second pass over the same objects decides nothing, also at a later time."""
    cluster = started()
    cluster.wait(30)
    decision = cluster.step()
    assert (decision.status, decision.creates, decision.deletes, decision.events) == (None, (), (), ())


def test_events_tell_what_the_status_says() -> None:
    """Accepted, running and the end are told once each."""
    cluster = Cluster(job_of())
    first = cluster.step()
    assert [(event.type, event.reason) for event in first.events] == [("Normal", "Accepted")]
    cluster.settle()
    cluster.run()
    assert [event.reason for event in cluster.step().events] == ["Running"]
    cluster.set_job_set(terminalState="Completed")
    assert [event.reason for event in cluster.step().events] == ["Completed"]
    assert cluster.step().events == ()


def test_a_broken_job_is_refused_by_the_controller_alone() -> None:
    """Every violation in the words of `grpoctl validate`, and no child is made, now or later."""
    cluster = Cluster(job_of(steps=0, seed=-1))
    cluster.settle()
    assert cluster.condition("Validated") == ("False", "InvalidSpec")
    assert cluster.condition("Failed") == ("True", "InvalidSpec")
    assert [line.partition(":")[0] for line in cluster.message("Validated").splitlines()] == ["spec.steps", "spec.seed"]
    assert (cluster.job_set, cluster.frozen) == (None, None)


def test_warnings_stand_in_the_condition() -> None:
    """What is allowed but doubtful is told where it was accepted."""
    cluster = Cluster(job_of())
    cluster.settle()
    assert "warning: spec.output.uri: null keeps the run folder in the pods" in cluster.message("Validated")


def test_success_is_terminal() -> None:
    """Completed is Succeeded, with a time; a JobSet that is then gone is not made again."""
    cluster = started()
    cluster.set_job_set(terminalState="Completed")
    cluster.settle()
    assert cluster.condition("Succeeded") == ("True", "Completed")
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["completionTime"] == "2026-11-24T08:00:00Z"
    cluster.job_set = None
    decision = cluster.step()
    assert (decision.creates, decision.status) == ((), None)


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    """Its children go with it; nothing is created meanwhile."""
    cluster = Cluster(job_of())
    cluster.job["metadata"]["deletionTimestamp"] = "2026-11-24T08:00:00Z"
    assert cluster.step().creates == ()


def test_the_time_to_live_is_ours() -> None:
    """The JobSet has none; the job is deleted when its own is over, and looked at again then."""
    cluster = started(lifecycle={"ttlSecondsAfterFinished": 60})
    assert cluster.job_set is not None
    assert "ttlSecondsAfterFinished" not in cluster.job_set["spec"]
    cluster.set_job_set(terminalState="Completed")
    cluster.settle()
    assert cluster.step().requeue_after == 60
    cluster.wait(59)
    cluster.step()
    assert not cluster.deleted
    cluster.wait(1)
    cluster.step()
    assert cluster.deleted


def test_a_suspended_job_is_accepted_and_waits() -> None:
    """It is frozen, so that a later version starts what this one accepted; no JobSet is made."""
    cluster = Cluster(job_of(suspend=True))
    cluster.settle()
    assert cluster.job_set is None
    assert cluster.frozen is not None
    assert cluster.status["phase"] == "Suspended"


def test_suspend_deletes_the_job_set_and_costs_nothing() -> None:
    """First the status says so, then the JobSet goes; no budget is spent, and resuming makes it again."""
    cluster = started()
    cluster.job["spec"]["suspend"] = True
    decision = reconcile(cluster.seen(), SETTINGS)
    assert decision.status is not None
    assert decision.status.attempts.released == "js-1"
    assert [deletion.uid for deletion in decision.deletes] == ["js-1"]
    cluster.settle()
    assert cluster.status["phase"] == "Suspended"
    assert "startTime" not in cluster.status
    cluster.job["spec"]["suspend"] = False
    cluster.settle()
    assert cluster.made == 2
    assert (cluster.attempts["restarts"], cluster.attempts["disruptions"]) == (0, 0)


def test_resuming_before_the_pods_ended_waits_for_them() -> None:
    """The JobSet that was released is not taken back, and its end is no disruption."""
    cluster = started()
    cluster.job["spec"]["suspend"] = True
    held = cluster.job_set
    cluster.step()
    cluster.job_set = held | {"metadata": held["metadata"] | {"deletionTimestamp": "2026-11-24T08:00:00Z"}}  # type: ignore[index,operator]
    cluster.job["spec"]["suspend"] = False
    cluster.settle()
    assert cluster.made == 1
    cluster.job_set = None
    cluster.settle()
    assert cluster.made == 2
    assert cluster.attempts["disruptions"] == 0


def test_a_job_set_made_again_is_the_frozen_one() -> None:
    """Verbatim, but for the number of attempts before it: with it the trainer never takes itself for the first."""
    cluster = started()
    assert cluster.frozen is not None
    first = json.loads(cluster.frozen["data"]["jobset.json"])
    cluster.job["spec"]["suspend"] = True
    cluster.settle()
    cluster.job["spec"]["suspend"] = False
    cluster.settle()
    assert cluster.job_set is not None
    (container,) = _pod_spec(cluster.job_set)["containers"]
    added = container["env"].pop()
    assert added == {"name": "GRPO_ATTEMPTS_BEFORE", "value": "1"}
    assert cluster.job_set["spec"] == first["spec"]


def _pod_spec(job_set: dict[str, Any]) -> Any:
    return job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_a_newer_version_writes_nothing() -> None:
    """An operator with another default image starts over a running and a suspended job: no create, no delete."""
    newer = Settings(image="ghcr.io/example/newer:9")
    for cluster in (started(), Cluster(job_of(suspend=True))):
        cluster.settle()
        decision = reconcile(cluster.seen(), newer)
        assert (decision.creates, decision.deletes, decision.status) == ((), (), None)


def test_a_newer_version_resumes_what_an_older_one_accepted() -> None:
    """The image is the one that was frozen."""
    cluster = Cluster(job_of(suspend=True))
    cluster.settle()
    cluster.job["spec"]["suspend"] = False
    (job_set,) = reconcile(cluster.seen(), Settings(image="ghcr.io/example/newer:9")).creates
    assert _pod_spec(job_set)["containers"][0]["image"] == SETTINGS.image


def test_a_death_between_creates_and_status_changes_nothing() -> None:
    """The next process finds the ConfigMap by its owner and the JobSet by its name, and takes both as they are."""
    cluster = Cluster(job_of())
    cluster.create(reconcile(cluster.seen(), SETTINGS))
    assert cluster.frozen is not None
    decision = reconcile(cluster.seen(), Settings(image="ghcr.io/example/newer:9"))
    assert decision.creates == ()
    assert decision.status is not None
    assert decision.status.run_config_name == cluster.frozen["metadata"]["name"]
    assert decision.status.plan is not None


def test_the_queue_may_change_while_the_job_is_suspended() -> None:
    """Queue label, priority and suspension are filled in when the JobSet is posted."""
    cluster = Cluster(job_of(suspend=True, queue={"localQueue": "team-a"}))
    cluster.settle()
    cluster.job["spec"] |= {"suspend": False, "queue": {"localQueue": "team-b", "workloadPriorityClass": "high"}}
    cluster.settle()
    assert cluster.job_set is not None
    labels = cluster.job_set["metadata"]["labels"]
    assert (labels["kueue.x-k8s.io/queue-name"], labels["kueue.x-k8s.io/priority-class"]) == ("team-b", "high")
    assert cluster.job_set["spec"]["suspend"] is True


def test_a_lost_config_ends_a_job_that_needs_it() -> None:
    """Nothing can tell what was accepted: the job fails, and does not guess."""
    cluster = Cluster(job_of(suspend=True))
    cluster.settle()
    cluster.frozen = None
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "FrozenConfigLost")


def test_a_running_job_outlives_its_config() -> None:
    """Pods that run have read it; only what must be made again needs it."""
    cluster = started()
    cluster.frozen = None
    cluster.settle()
    assert cluster.status["phase"] == "Running"
    cluster.job_set = None
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "FrozenConfigLost")


def test_without_job_sets_the_job_waits_and_says_how_to_install_them() -> None:
    """The condition holds the command; once the definition is there things go on."""
    cluster = Cluster(job_of(), schema=None)
    cluster.settle()
    assert cluster.condition("Validated") == ("True", "Accepted")
    assert cluster.condition("Provisioned") == ("False", "JobSetMissing")
    assert "kubectl apply --server-side -f https://" in cluster.message("Provisioned")
    assert cluster.status["phase"] == "Pending"
    cluster.schema = {"x-kubernetes-preserve-unknown-fields": True}
    cluster.settle()
    assert cluster.job_set is not None


def test_nobody_is_blamed_while_job_sets_are_not_known() -> None:
    """With the definition away, a JobSet that is not seen was not deleted."""
    cluster = started()
    cluster.schema, cluster.job_set = None, None
    cluster.settle()
    assert cluster.attempts["disruptions"] == 0


def test_only_fields_that_the_installed_job_set_has_are_written() -> None:
    """A field of a later JobSet is left out and named, in what is frozen too."""
    schema: dict[str, Any] = {"properties": {key: {"x-kubernetes-preserve-unknown-fields": True} for key in _KNOWN}}
    cluster = Cluster(job_of(), schema=schema)
    cluster.settle()
    assert cluster.job_set is not None
    assert "coordinator" not in cluster.job_set["spec"]
    assert "the installed JobSet has no spec.coordinator" in cluster.message("Validated")
    assert cluster.frozen is not None
    assert "coordinator" not in json.loads(cluster.frozen["data"]["jobset.json"])["spec"]


_KNOWN = ("replicatedJobs", "network", "failurePolicy", "successPolicy", "suspend")


def test_a_foreign_object_of_the_name_is_reported_and_left() -> None:
    """Nothing is created and nothing adopted; when it is gone, things go on."""
    cluster = Cluster(job_of())
    cluster.step(taken="JobSet demo belongs to Deployment web")
    assert cluster.condition("Provisioned") == ("False", "NameTaken")
    assert (cluster.job_set, cluster.frozen) == (None, None)
    assert "runConfigName" not in cluster.status
    cluster.settle()
    assert cluster.job_set is not None


def test_what_the_api_server_refuses_stands_in_the_status() -> None:
    """A quota or a policy of the namespace: its words, and another try later."""
    cluster = Cluster(job_of())
    decision = cluster.step(refusal="admission webhook denied the request: no TPUs on Fridays")
    assert decision.creates == ()
    assert decision.requeue_after == 30
    assert cluster.condition("Provisioned") == ("False", "Refused")
    assert "no TPUs on Fridays" in cluster.message("Provisioned")


@pytest.mark.parametrize("suspended", [False, True])
def test_the_active_deadline_ends_a_job(suspended: bool) -> None:
    """Counted from its start; a suspended job has time to stand still, and starts anew when it is resumed."""
    cluster = started(lifecycle={"activeDeadlineSeconds": 100})
    cluster.job["spec"]["suspend"] = suspended
    cluster.settle()
    cluster.wait(101)
    cluster.settle()
    assert (cluster.condition("Failed") == ("True", "DeadlineExceeded")) is not suspended
    assert cluster.job_set is None
    if suspended:
        cluster.job["spec"]["suspend"] = False
        cluster.settle()
        assert cluster.status["startTime"] == "2026-11-24T08:01:41Z"


def test_the_job_is_looked_at_when_its_deadline_comes() -> None:
    """Time alone brings the controller back."""
    cluster = started(lifecycle={"activeDeadlineSeconds": 100})
    cluster.wait(40)
    assert cluster.step().requeue_after == 60


def test_a_start_that_does_not_come_about_is_made_again_later() -> None:
    """All slices are released, a disruption is spent, and the wait doubles until the budget ends it."""
    cluster = Cluster(job_of(lifecycle={"startupDeadlineSeconds": 60}, restart={"maxDisruptions": 2}))
    cluster.settle()
    cluster.pods = [pod(0), pod(1, phase="Pending", scheduled=False, unschedulable="0/3 nodes are available")]
    cluster.wait(60)
    cluster.settle()
    assert cluster.job_set is None
    assert cluster.condition("Provisioned") == ("False", "BackingOff")
    assert "0/3 nodes are available" in cluster.message("Provisioned")
    for wait in (30, 60):
        cluster.wait(wait - 1)
        cluster.settle()
        assert cluster.job_set is None
        cluster.wait(1)
        cluster.settle()
        assert cluster.job_set is not None
        cluster.wait(60)
        cluster.settle()
    assert cluster.attempts["disruptions"] == 3
    assert cluster.condition("Failed") == ("True", "MaxDisruptionsReached")


def test_a_start_in_time_meets_the_deadline_for_good() -> None:
    """Once every pod runs there is no startup deadline; the next attempt has its own."""
    cluster = started(lifecycle={"startupDeadlineSeconds": 60})
    cluster.wait(1000)
    cluster.settle()
    assert cluster.attempts["disruptions"] == 0
    cluster.set_job_set(restarts=1)
    cluster.pods = [replace(one, gone=True) for one in cluster.pods]
    cluster.settle()
    assert cluster.attempts["disruptions"] == 1
    cluster.pods = []
    cluster.wait(59)
    cluster.settle()
    assert cluster.job_set is not None
    cluster.wait(1)
    cluster.settle()
    assert cluster.attempts["last"][-1]["reason"] == "StartupDeadline"


def test_times_are_kept_where_nothing_turned() -> None:
    """A condition's transition time is that of its status, whatever its message says meanwhile."""
    cluster = Cluster(job_of())
    cluster.settle()
    cluster.wait(10)
    cluster.run()
    cluster.settle()
    times = {one["type"]: one["lastTransitionTime"] for one in cluster.status["conditions"]}
    assert times["Validated"] == "2026-11-24T08:00:00Z"
    assert times["Running"] == "2026-11-24T08:00:10Z"
    assert cluster.now > START
