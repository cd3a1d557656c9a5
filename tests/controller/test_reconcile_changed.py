"""A specification that was changed where no rule refused it: the job goes on as it was accepted, and says so."""

from typing import Any

from tests.controller.observing import Cluster, ended, job_of


def accepted(**spec: Any) -> Cluster:
    """A job that runs; `change` is what somebody writes."""
    cluster = Cluster(job_of(**spec))
    cluster.settle()
    return cluster


def change(cluster: Cluster, **spec: Any) -> None:
    metadata = cluster.job["metadata"] | {"generation": cluster.job["metadata"]["generation"] + 1}
    cluster.job = cluster.job | {"metadata": metadata, "spec": cluster.job["spec"] | spec}


def test_a_change_that_cannot_be_taken_is_told() -> None:
    """Each path is named, once as an event too; the job is not touched, and set back it is as it was."""
    cluster = accepted()
    job_set = cluster.job_set
    change(cluster, seed=7, rollout={"perDeviceBatchSize": 4})
    decision = cluster.step()
    assert cluster.condition("Validated") == ("True", "SpecChanged")
    assert cluster.message("Validated").startswith(
        "spec.rollout.perDeviceBatchSize, spec.seed: changed after the job was accepted"
    )
    assert [(event.type, event.reason) for event in decision.events] == [("Warning", "SpecChanged")]
    assert cluster.step().events == ()
    assert cluster.job_set is job_set
    change(cluster, seed=None, rollout={"perDeviceBatchSize": 2})
    cluster.settle()
    assert cluster.condition("Validated") == ("True", "Accepted")


def test_budgets_are_those_that_were_accepted() -> None:
    """Restarts that were allowed afterwards are not, and what the status shows of the job stays as it was."""
    cluster = accepted(restart={"maxRestarts": 0})
    plan = cluster.status["plan"]
    change(cluster, restart={"maxRestarts": 9}, cpu={"hosts": 1})
    cluster.step()
    cluster.restart_with(ended(1, 0), ended(9, 1))
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "MaxRestartsReached")
    assert cluster.status["plan"] == plan


def test_what_may_change_is_taken_and_not_told() -> None:
    """Suspension, and deadlines, of a job whose other keys stay; a default that is filled in is no change either."""
    cluster = accepted(lifecycle={"activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 5})
    change(cluster, suspend=True, lifecycle={"terminationGracePeriodSeconds": 5}, restart={"maxRestarts": 3})
    cluster.settle()
    assert cluster.status["phase"] == "Suspended"
    assert cluster.condition("Validated") == ("True", "Accepted")


def test_a_config_map_of_an_earlier_version_tells_nothing() -> None:
    """Where the specification was not kept, a change cannot be seen, and the job goes on."""
    cluster = accepted()
    assert cluster.frozen is not None
    del cluster.frozen["data"]["accepted.json"]
    change(cluster, seed=7)
    cluster.settle()
    assert cluster.condition("Validated") == ("True", "Accepted")
