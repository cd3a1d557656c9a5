"""What reports of the trainer do to a job, and what their absence does not."""

from dataclasses import replace

from controller.lifecycle.observed import Report
from tests.controller.observing import Cluster, ended, started

REPORT = Report(
    step=120,
    total_steps=500,
    reward_mean=0.123456,
    tokens_per_second_per_chip=1234.5678,
    eta_seconds=7500.0,
    checkpoint_step=100,
    job_set_uid="js-1",
    restart=0,
    age_seconds=1.0,
    silent_seconds=2.0,
)


def reporting(**changes: float) -> Cluster:
    cluster = started(progressDeadlineSeconds=300)
    cluster.report = replace(REPORT, **changes)  # type: ignore[arg-type]
    cluster.settle()
    return cluster


def test_a_report_is_shown() -> None:
    """Step, reward, speed, what is left, and the newest checkpoint."""
    cluster = reporting()
    progress = cluster.status["progress"]
    assert (progress["display"], progress["rewardMean"], progress["eta"]) == ("120/500", 0.1235, "2h05m")
    assert progress["tokensPerSecondPerChip"] == 1235
    assert cluster.status["checkpoint"] == {"lastStep": 100}
    assert cluster.condition("Progressing") == ("True", "Reporting")


def test_without_reports_nothing_is_restarted() -> None:
    """An endpoint that is cut, or an operator that was down: unknown, for as long as it lasts."""
    cluster = started(progressDeadlineSeconds=300)
    for _ in range(10):
        cluster.wait(300)
        cluster.settle()
    assert cluster.condition("Progressing") == ("Unknown", "NoReports")
    cluster.report = replace(REPORT, age_seconds=9000.0)
    cluster.settle()
    assert cluster.condition("Progressing") == ("Unknown", "NoReports")
    assert (cluster.made, cluster.attempts["restarts"]) == (1, 0)


def test_a_report_that_ends_is_noticed_in_time() -> None:
    """The job is looked at again when the last report grows old."""
    cluster = reporting(age_seconds=20.0)
    assert cluster.step().requeue_after == 101


def test_a_heartbeat_that_stands_still_is_stalled() -> None:
    """At the trainer's own deadline the condition says so: its watchdog acts, nobody else."""
    cluster = reporting(silent_seconds=300.0)
    assert cluster.condition("Progressing") == ("False", "Stalled")
    assert cluster.attempts["restarts"] == 0


def test_at_twice_the_deadline_the_run_is_begun_anew() -> None:
    """The watchdog did not act: the JobSet is released, a restart is spent, and the next one made."""
    cluster = reporting(silent_seconds=600.0)
    (attempt,) = cluster.attempts["last"]
    assert (attempt["class"], attempt["reason"]) == ("Failure", "Stalled")
    assert cluster.made == 2
    assert cluster.attempts["restarts"] == 1


def test_work_that_takes_long_has_its_time() -> None:
    """Loading and compiling have a deadline of their own, which the trainer tells."""
    cluster = reporting(silent_seconds=3000.0, patience_seconds=3600.0)
    assert cluster.condition("Progressing") == ("True", "Reporting")
    cluster.report = replace(REPORT, silent_seconds=7200.0, patience_seconds=3600.0)
    cluster.settle()
    assert cluster.attempts["last"][-1]["reason"] == "Stalled"


def test_a_report_of_an_earlier_attempt_says_nothing() -> None:
    """What a dead process said last does not end its successor."""
    cluster = reporting()
    cluster.report = replace(REPORT, silent_seconds=600.0)
    cluster.restart_with(ended(10), ended(9, 1))
    cluster.settle()
    assert cluster.attempts["restarts"] == 0
    assert cluster.condition("Progressing") == ("Unknown", "NoReports")
    assert cluster.status["progress"]["display"] == "120/500"


def test_a_stall_that_spends_the_last_restart_ends_the_job() -> None:
    """It loops no further than any other failure."""
    cluster = started(progressDeadlineSeconds=300, restart={"maxRestarts": 0})
    cluster.report = replace(REPORT, silent_seconds=600.0)
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "MaxRestartsReached")
    assert cluster.job_set is None
