"""A job's life with a real API server: made, suspended, resumed, disturbed, ended and deleted."""

import json

import pytest

from controller.cluster.resources import CONFIG_MAPS, GRPOJOBS, JOB_SETS
from controller.runtime.client import ApiError
from tests.controlplane.admission import install_crd
from tests.controlplane.operating import Operating

RUN = [["run"]] * 9


def test_a_job_succeeds_and_goes_after_its_time(operating: Operating) -> None:
    """Every condition and event on the way; then its time to live deletes it and all that it owns."""
    operating.start()
    operating.apply("short", [["0"]], lifecycle={"ttlSecondsAfterFinished": 2, "terminationGracePeriodSeconds": 5})
    status = operating.wait_phase("short", "Succeeded")
    assert status["jobSetName"] == "short"
    assert operating.api.get(CONFIG_MAPS, status["runConfigName"], operating.namespace)["immutable"] is True
    operating.wait(lambda: {"Accepted", "Completed"} <= set(operating.events("short")), "the events")
    operating.wait(lambda: not operating.job("short"), "the end of the job")
    operating.wait(lambda: operating.job_set("short") is None, "the end of its JobSet")


def test_a_job_is_suspended_and_resumed(operating: Operating) -> None:
    """The JobSet goes and comes again, verbatim but for the attempts before; no budget is spent."""
    operating.start()
    operating.apply("pausing", RUN)
    operating.wait_phase("pausing", "Running")
    first = operating.job_set("pausing")
    operating.change("pausing", suspend=True)
    operating.wait_phase("pausing", "Suspended")
    operating.wait(lambda: operating.job_set("pausing") is None and not operating.pods("pausing"), "the pods' end")
    operating.change("pausing", suspend=False)
    ledger = operating.wait_phase("pausing", "Running")["attempts"]
    again = operating.job_set("pausing")
    assert first is not None
    assert again is not None
    assert first["metadata"]["uid"] != again["metadata"]["uid"]
    env = _container(again)["env"]
    assert env.pop() == {"name": "GRPO_ATTEMPTS_BEFORE", "value": "1"}
    assert _container(first) == _container(again)
    assert (ledger["restarts"], ledger["disruptions"]) == (0, 0)


def _container(job_set: dict[str, object]) -> dict[str, list[object]]:
    spec = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]  # type: ignore[index]
    return spec["containers"][0]  # type: ignore[no-any-return]


def test_a_newer_operator_writes_no_job_set(operating: Operating) -> None:
    """Another version with another image starts over running and suspended jobs: every object is as it was."""
    operating.start()
    for number in range(3):
        operating.apply(f"runs-{number}", RUN)
        operating.apply(f"rests-{number}", RUN, suspend=True)
    for number in range(3):
        operating.wait_phase(f"runs-{number}", "Running")
        operating.wait_phase(f"rests-{number}", "Suspended")
    before = versions(operating)
    operating.stop()
    operating.start(image="ghcr.io/example/newer:9")
    operating.apply("later", [["0"]])
    operating.wait_phase("later", "Succeeded")
    after = versions(operating)
    assert {key: after[key] for key in before} == before


def versions(operating: Operating) -> dict[tuple[str, str], tuple[str, int]]:
    """What generation each JobSet and job is of, and that there are no others."""
    found = {}
    for resource in (JOB_SETS, GRPOJOBS, CONFIG_MAPS):
        for body in operating.api.list(resource, operating.namespace)["items"]:
            metadata = body["metadata"]
            found[resource.kind, metadata["name"]] = (metadata["uid"], metadata.get("generation"))
    return found


def test_a_foreign_job_set_is_reported_and_left(operating: Operating) -> None:
    """Its owner is named on the job; when it is gone the job runs."""
    operating.start()
    operating.apply("first", [["0"]])
    operating.wait_phase("first", "Succeeded")
    foreign = operating.job_set("first")
    assert foreign is not None
    spec = foreign["spec"] | {"suspend": True}
    body = {"apiVersion": JOB_SETS.api_version, "kind": "JobSet", "metadata": {"name": "taken"}, "spec": spec}
    made = operating.api.create(JOB_SETS, body, operating.namespace)
    operating.apply("taken", [["0"]])
    operating.wait(lambda: operating.condition("taken", "Provisioned") == ("False", "NameTaken"), "the report")
    assert "belongs to nobody" in operating.message("taken", "Provisioned")
    kept = operating.job_set("taken")
    assert kept is not None
    assert (kept["metadata"]["uid"], kept["metadata"].get("ownerReferences")) == (made["metadata"]["uid"], None)
    operating.api.delete(JOB_SETS, "taken", operating.namespace)
    operating.wait_phase("taken", "Succeeded")


def test_what_the_server_refuses_is_told(operating: Operating) -> None:
    """A quota of the namespace stands in the status, in the server's words, and the job runs when it is lifted."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    quota |= {"spec": {"hard": {"count/jobsets.jobset.x-k8s.io": "0"}}}
    operating.world.kubectl("-n", operating.namespace, "apply", "-f", "-", stdin=json.dumps(quota))
    operating.wait(lambda: _is_enforced(operating), "the quota")
    operating.start()
    operating.apply("limited", [["0"]])
    operating.wait(lambda: operating.condition("limited", "Provisioned") == ("False", "Refused"), "the refusal")
    assert "exceeded quota" in operating.message("limited", "Provisioned")
    operating.world.kubectl("-n", operating.namespace, "delete", "resourcequota", "none")
    operating.wait_phase("limited", "Succeeded")


def _is_enforced(operating: Operating) -> bool:
    told = operating.world.kubectl("-n", operating.namespace, "get", "resourcequota", "none", "-o", "json").stdout
    return '"used"' in told


def test_deadlines_end_a_start_and_a_job(operating: Operating) -> None:
    """A start that no node can serve is released and backs off, with the scheduler's words; a job's own deadline ends
    it.
    """
    operating.start()
    never = {"nodeSelector": {"test.example/no-such": "node"}}
    late = {"startupDeadlineSeconds": 3, "terminationGracePeriodSeconds": 5}
    operating.apply("stuck", RUN, lifecycle=late, **never)
    operating.apply("endless", RUN, lifecycle={"activeDeadlineSeconds": 5, "terminationGracePeriodSeconds": 5})
    operating.wait(lambda: operating.condition("stuck", "Provisioned") == ("False", "Unschedulable"), "why it waits")
    assert "node affinity/selector" in operating.message("stuck", "Provisioned")
    operating.wait(lambda: operating.condition("stuck", "Provisioned") == ("False", "BackingOff"), "the release")
    assert operating.attempts("stuck")[-1]["reason"] == "StartupDeadline"
    operating.wait_phase("endless", "Failed")
    assert operating.condition("endless", "Failed") == ("True", "DeadlineExceeded")
    operating.wait(lambda: operating.job_set("endless") is None, "the end of its JobSet")


def test_a_deleted_job_takes_its_children_along(operating: Operating) -> None:
    """With foreground deletion they go first; nothing is made again meanwhile."""
    operating.start()
    operating.apply("gone", RUN)
    name = operating.wait_phase("gone", "Running")["runConfigName"]
    operating.api.delete(GRPOJOBS, "gone", operating.namespace)
    operating.wait(lambda: not operating.job("gone"), "the end of the job")
    assert operating.job_set("gone") is None
    assert operating.get(CONFIG_MAPS, name) is None
    assert operating.pods("gone") == []


def test_a_job_of_the_same_name_waits_for_its_predecessor(operating: Operating) -> None:
    """Deleted and applied again at once: the old JobSet is not adopted, and the new one comes when it is gone."""
    operating.start()
    operating.apply("again", [["deaf run"]])
    operating.wait_phase("again", "Running")
    old = operating.job_set("again")
    operating.api.delete(GRPOJOBS, "again", operating.namespace, propagation="Background")
    operating.apply("again", [["0"]])
    operating.wait_phase("again", "Succeeded")
    new = operating.job_set("again")
    assert old is not None
    assert new is not None
    assert old["metadata"]["uid"] != new["metadata"]["uid"]


def test_a_broken_job_is_refused_without_any_door(operating: Operating) -> None:
    """No webhook is there: the controller tells every violation, and makes nothing."""
    operating.start()
    operating.apply("broken", rollout={"batchSize": 100, "numPreQ": 8})
    operating.wait_phase("broken", "Failed")
    assert operating.condition("broken", "Validated") == ("False", "InvalidSpec")
    assert "spec.rollout.batchSize: 100 must be a multiple of numPreQ = 8" in operating.message("broken", "Validated")
    assert operating.job_set("broken") is None


def test_requests_are_few(operating: Operating) -> None:
    """Up to its JobSet and its status a job costs three writes: two creates and one status."""
    seen: list[tuple[str, str]] = []
    operating.start(heard=seen)
    operating.apply("cheap", RUN, queue={"localQueue": "none"})
    operating.wait_phase("cheap", "Queued")
    operating.wait(lambda: operating.events("cheap"), "its first event")
    writes = [(method, path.rpartition("/")[2]) for method, path in seen if method != "GET"]
    writes = [one for one in writes if one[1] != "events"]
    assert writes[:3] == [("POST", "configmaps"), ("POST", "jobsets"), ("PUT", "status")]
    assert len(writes) <= 4


def test_one_manager_writes_the_status(operating: Operating) -> None:
    """Who wrote what can be seen; and what the job was accepted as cannot be changed."""
    operating.start()
    operating.apply("named", RUN, suspend=True)
    operating.wait_phase("named", "Suspended")
    fields = operating.job("named")["metadata"]["managedFields"]
    assert {one["manager"] for one in fields if one.get("subresource") == "status"} == {"grpo-operator"}
    with pytest.raises(ApiError, match=r"spec\.seed: Forbidden"):
        operating.change("named", seed=7)


def test_a_change_without_the_rules_of_the_crd_is_told(operating: Operating) -> None:
    """A definition that lost its rules lets everything be changed: the job goes on as it was accepted, resumed too, and
    names what it does not take; set back, it is as before.
    """
    operating.start()
    operating.apply("edited", RUN, restart={"maxRestarts": 1})
    before = operating.wait_phase("edited", "Running")
    install_crd(operating.world, with_rules=False)
    try:
        operating.change("edited", seed=7, restart={"maxRestarts": 9}, env=[{"name": "PLAN", "value": "[]"}])
        operating.wait(lambda: operating.condition("edited", "Validated") == ("True", "SpecChanged"), "the report")
        told = "spec.env, spec.restart.maxRestarts, spec.seed: changed after the job was accepted, and not taken"
        assert operating.message("edited", "Validated").startswith(told)
        operating.wait(lambda: "SpecChanged" in operating.events("edited"), "its event")
        operating.change("edited", suspend=True)
        operating.wait_phase("edited", "Suspended")
        operating.wait(lambda: operating.job_set("edited") is None, "the end of its JobSet")
        operating.change("edited", suspend=False)
        after = operating.wait_phase("edited", "Running")  # with PLAN as it was: by the new one it would succeed
        assert after["runConfigName"] == before["runConfigName"]
        back = [{"name": "PLAN", "value": json.dumps(RUN)}]
        operating.change("edited", seed=None, restart={"maxRestarts": 1}, env=back)
        operating.wait(lambda: operating.condition("edited", "Validated") == ("True", "Accepted"), "no report")
    finally:
        install_crd(operating.world)
