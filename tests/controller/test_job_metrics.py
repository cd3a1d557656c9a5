"""What the operator counts of jobs: phases as they are, attempts and ends once each."""

from prometheus_client import CollectorRegistry

from controller.operator.jobmetrics import JobMetrics
from controller.runtime.store import Store
from tests.controller.observing import Cluster, ended, job_of


def test_attempts_and_ends_are_counted_once() -> None:
    """By class and reason; a status that is stored again with the same attempts adds nothing."""
    registry, jobs, cluster = CollectorRegistry(), Store(), Cluster(job_of(restart={"maxRestarts": 0}))
    metrics = JobMetrics(registry, jobs)

    def step() -> None:
        job, decision = cluster.job, cluster.step()
        if decision.status is not None:
            metrics.told(job, decision.status)
        version = int(cluster.job["metadata"]["resourceVersion"]) + 1
        cluster.job = cluster.job | {"metadata": cluster.job["metadata"] | {"resourceVersion": str(version)}}
        jobs.put(cluster.job)

    step()
    assert registry.get_sample_value("grpojobs", {"phase": "Starting"}) == 1
    cluster.run()
    step()
    assert registry.get_sample_value("grpojobs", {"phase": "Running"}) == 1
    cluster.restart_with(ended(1, 0), ended(9, 1))
    for _ in range(3):
        step()
    failed = {"class": "Failure", "reason": "TrainerFailed"}
    assert registry.get_sample_value("grpojob_attempts_total", failed) == 1
    end = {"result": "Failed", "reason": "MaxRestartsReached"}
    assert registry.get_sample_value("grpojob_finished_total", end) == 1
    assert registry.get_sample_value("grpojobs", {"phase": "Failed"}) == 1
    assert registry.get_sample_value("grpojobs", {"phase": "Running"}) == 0
