"""The judge: which class an attempt has, against which budget it counts, and that it counts once."""

from dataclasses import replace
from itertools import permutations

import pytest

from controller.lifecycle.attempts import RANKS, reason_of
from controller.lifecycle.conditions import Reason
from controller.lifecycle.observed import Pod
from tests.controller.observing import Cluster, cause, ended, job_of, pod, started
from trainer.contract.exits import FATAL

GONE_RUNNING = pod(gone=True)
EVICTED = "EvictionByEvictionAPI: Eviction API: evicting"
ENDS: tuple[tuple[str, Pod, str, str], ...] = (
    ("1", ended(1), "Failure", "TrainerFailed"),
    ("6", ended(6), "Failure", "OutOfMemory"),
    ("8", ended(8), "Failure", "Stalled"),
    ("9", ended(9), "Disruption", "PeerLost"),
    ("10", ended(10), "Disruption", "Preempted"),
    ("137 by the kernel", ended(137, ended_as="OOMKilled"), "Failure", "OutOfMemory"),
    ("137 of nobody's asking", ended(137, ended_as="Error"), "Failure", "OutOfMemory"),
    ("137 after the grace of a deletion", ended(137, asked=True), "Disruption", "Unknown"),
    ("137 of a lost node", ended(137, ended_as="ContainerStatusUnknown"), "Disruption", "Unknown"),
    ("143", ended(143, asked=True), "Disruption", "Unknown"),
    ("no such program", ended(128, ended_as="StartError"), "Failure", "CannotStart"),
    ("evicted while it saved", ended(10, disruption=EVICTED), "Disruption", "Disrupted"),
    ("evicted as it failed", ended(1, disruption=EVICTED), "Disruption", "Disrupted"),
    ("failed without a container", pod(phase="Failed", ended_as="UnexpectedAdmissionError"), "Disruption", "Unknown"),
    ("gone without a word", GONE_RUNNING, "Disruption", "Unknown"),
)


@pytest.mark.parametrize(("end", "kind", "reason"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS])
def test_each_end_alone(end: Pod, kind: str, reason: str) -> None:
    """One pod ends so, the other is its victim: the attempt has this class, and spends one of that budget."""
    cluster = started()
    cluster.restart_with(end, ended(0, host=1))
    cluster.settle()
    (attempt,) = cluster.attempts["last"]
    assert (attempt["class"], attempt["reason"]) == (kind, reason)
    spent = (cluster.attempts["restarts"], cluster.attempts["disruptions"])
    assert spent == ((1, 0) if kind == "Failure" else (0, 1))
    assert cluster.status["phase"] == "Running"


@pytest.mark.parametrize("code", FATAL)
def test_a_fatal_code_ends_the_job(code: int) -> None:
    """All processes agree on it, the JobSet fails, and the job with its own reason; no budget is asked."""
    cluster = started()
    cluster.set_job_set(terminalState="Failed")
    cluster.pods = [ended(code, host) for host in (0, 1)]
    cluster.settle()
    (attempt,) = cluster.attempts["last"]
    assert (attempt["class"], attempt["exitCode"], attempt["step"]) == ("Fatal", code, 3)
    assert cluster.condition("Failed") == ("True", attempt["reason"])
    assert (cluster.attempts["restarts"], cluster.attempts["disruptions"]) == (0, 0)


def test_the_two_versions_of_a_mismatch_are_named() -> None:
    """The image's words, which name the version it reads and the one that was written, stand in the condition."""
    cluster = started()
    cluster.set_job_set(terminalState="Failed")
    said = "schema_version: 1 must be one that this trainer reads, which is 2"
    cluster.pods = [ended(3, host, message=cause(3, said, None)) for host in (0, 1)]
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "ContractMismatch")
    assert said in cluster.message("Failed")


CAUSES = [ended(2), ended(9, disruption=EVICTED), ended(1), ended(10), ended(9), ended(143, asked=True)]


def test_precedence_goes_by_class_and_not_by_time() -> None:
    """Of two pods the one of the higher class is the cause, whichever ended first and whichever is told first."""
    for higher, first in enumerate(CAUSES):
        for second in CAUSES[higher + 1 :]:
            for one, other in permutations((first, second)):
                early = replace(one, ended_at="2026-11-24T08:01:00Z", host_index=0)
                late = replace(other, ended_at="2026-11-24T08:01:09Z", host_index=1)
                cluster = started()
                cluster.restart_with(early, late)
                cluster.settle()
                (attempt,) = cluster.attempts["last"]
                assert attempt["reason"] == reason_of(first).word, (first, second)  # type: ignore[union-attr]


def test_of_one_class_the_first_to_end_is_named() -> None:
    """Pod, exit code, step and message are those of the first failed pod."""
    cluster = started()
    late = ended(1, 0, at="2026-11-24T08:02:00Z", message=cause(1, "late", 7))
    early = ended(1, 1, at="2026-11-24T08:01:00Z", message=cause(1, "early", 7))
    cluster.restart_with(late, early)
    cluster.settle()
    (attempt,) = cluster.attempts["last"]
    assert (attempt["pod"], attempt["exitCode"], attempt["step"], attempt["message"]) == (early.name, 1, 7, "early")


def test_every_reason_of_an_attempt_has_one_rank() -> None:
    """No reason stands in two classes."""
    ranked = [reason for reasons in RANKS for reason in reasons]
    assert len(ranked) == len(set(ranked))


def test_a_failed_pod_is_told_before_it_is_gone() -> None:
    """While the others still end, the status names it and says that the run restarts; nothing is counted yet."""
    cluster = started()
    cluster.pods[0] = ended(1, message=cause(1, "out of luck"), job_set_uid="js-1")
    cluster.settle()
    assert cluster.attempts["ending"]["message"] == "out of luck"
    assert cluster.attempts["restarts"] == 0
    assert cluster.condition("Restarting") == ("True", "Restarting")
    assert cluster.status["phase"] == "Restarting"


def test_what_was_told_survives_the_controller() -> None:
    """The one that comes after a death counts the attempt by what the status says of it; its pods are gone."""
    cluster = started()
    cluster.pods[0] = ended(6, job_set_uid="js-1")
    cluster.settle()
    cluster.set_job_set(restarts=1)
    cluster.run(restart=1)
    cluster.settle()
    (attempt,) = cluster.attempts["last"]
    assert (attempt["reason"], attempt["restart"]) == ("OutOfMemory", 0)
    assert "ending" not in cluster.attempts


def test_a_worse_cause_that_comes_late_replaces_a_victim() -> None:
    """A victim told first does not settle the class: the attempt is judged when all its pods are over."""
    cluster = started()
    cluster.pods[1] = ended(9, 1, job_set_uid="js-1")
    cluster.settle()
    assert cluster.attempts["ending"]["reason"] == "PeerLost"
    cluster.set_job_set(restarts=1)
    cluster.settle()
    assert "last" not in cluster.attempts or cluster.attempts["last"] == []
    cluster.pods[0] = ended(1, 0, job_set_uid="js-1")
    cluster.settle()
    assert [one["reason"] for one in cluster.attempts["last"]] == ["TrainerFailed"]


def test_an_attempt_is_counted_once() -> None:
    """However often it is seen, and with a controller that begins anew each time."""
    cluster = started()
    cluster.restart_with(ended(1), ended(9, 1))
    for _ in range(5):
        cluster.settle()
    assert (cluster.attempts["restarts"], cluster.attempts["judged"]) == (1, 1)


def test_restarts_that_nobody_saw_are_disruptions() -> None:
    """A controller that was down finds a higher number: each attempt of it is unknown, and counted."""
    cluster = started()
    cluster.set_job_set(restarts=3)
    cluster.run(restart=3)
    cluster.settle()
    assert [(one["reason"], one["restart"]) for one in cluster.attempts["last"]] == [("Unknown", n) for n in range(3)]
    assert cluster.attempts["disruptions"] == 3


def test_restarts_before_a_success_that_nobody_saw_are_counted() -> None:
    """The first that a controller sees of a JobSet may be that it completed, after a restart."""
    cluster = started()
    cluster.set_job_set(restarts=1, terminalState="Completed")
    cluster.pods = []
    cluster.settle()
    assert cluster.condition("Succeeded") == ("True", "Completed")
    assert [(one["reason"], one["restart"]) for one in cluster.attempts["last"]] == [("Unknown", 0)]
    assert cluster.attempts["disruptions"] == 1


def test_pods_that_are_not_told_yet_are_waited_for() -> None:
    """The JobSet may be seen to restart before its pods are: half a minute, then it is unknown."""
    cluster = started()
    turned = {"type": "RestartingJobSet", "status": "True", "lastTransitionTime": "2026-11-24T08:00:00Z"}
    cluster.set_job_set(restarts=1, conditions=[turned])
    cluster.pods = []
    cluster.settle()
    assert cluster.attempts["disruptions"] == 0
    cluster.wait(30)
    cluster.settle()
    assert cluster.attempts["disruptions"] == 1


def test_a_fatal_end_that_nobody_saw_is_fatal() -> None:
    """The JobSet's own word says so, though no pod is left to tell which."""
    cluster = started()
    failed = {"type": "Failed", "status": "True", "reason": "FailJobSetFailurePolicyAction"}
    cluster.set_job_set(terminalState="Failed", conditions=[failed])
    cluster.pods = []
    cluster.wait(60)
    cluster.settle()
    assert cluster.condition("Failed") == ("True", "FatalExit")


@pytest.mark.parametrize(
    ("code", "budget", "reason"),
    [(1, "maxRestarts", "MaxRestartsReached"), (10, "maxDisruptions", "MaxDisruptionsReached")],
)
def test_a_budget_allows_so_many_and_no_more(code: int, budget: str, reason: str) -> None:
    """Three restarts go on; the next of that class ends the job, and what still runs of it is stopped."""
    cluster = started(restart={budget: 3})
    for _ in range(3):
        cluster.restart_with(ended(code), ended(9, 1))
        cluster.settle()
        assert cluster.status["phase"] == "Running"
    cluster.restart_with(ended(code), ended(9, 1))
    cluster.settle()
    assert cluster.condition("Failed") == ("True", reason)
    assert cluster.job_set is None
    assert cluster.made == 1


def test_the_budgets_are_apart() -> None:
    """A hundred disruptions do not touch the restarts, and the job goes on."""
    cluster = started(restart={"maxRestarts": 1})
    cluster.restart_with(ended(1), ended(9, 1))
    cluster.settle()
    for _ in range(100):
        cluster.restart_with(ended(10), ended(9, 1))
        cluster.settle()
    assert cluster.status["phase"] == "Running"
    assert (cluster.attempts["restarts"], cluster.attempts["disruptions"]) == (1, 100)
    assert len(cluster.attempts["last"]) == 10


def test_a_job_set_deleted_by_hand_is_made_again() -> None:
    """It spends a disruption, so that two who fight over it end; budgets and attempt numbers go on."""
    cluster = started()
    cluster.restart_with(ended(1), ended(9, 1))
    cluster.settle()
    cluster.job_set, cluster.pods = None, []
    cluster.settle()
    assert cluster.made == 2
    assert [one["reason"] for one in cluster.attempts["last"]] == ["TrainerFailed", "JobSetDeleted"]
    assert (cluster.attempts["restarts"], cluster.attempts["disruptions"], cluster.attempts["before"]) == (1, 1, 2)
    cluster.run()
    cluster.restart_with(ended(1), ended(9, 1))
    cluster.settle()
    assert cluster.attempts["restarts"] == 2


def test_who_deletes_the_job_set_for_ever_ends_the_job() -> None:
    """Nothing loops beyond its budget."""
    cluster = started(restart={"maxDisruptions": 5})
    for _ in range(20):
        cluster.job_set, cluster.pods = None, []
        cluster.settle()
    assert cluster.made == 6
    assert cluster.condition("Failed") == ("True", "MaxDisruptionsReached")


def test_a_job_set_replaced_while_nobody_looked_is_counted() -> None:
    """A controller died after it had made the JobSet anew and before it said so: the loss is counted all the same."""
    cluster = started()
    assert cluster.job_set is not None
    cluster.job_set = cluster.job_set | {"metadata": cluster.job_set["metadata"] | {"uid": "js-2"}}
    cluster.pods = []
    cluster.settle()
    assert [one["reason"] for one in cluster.attempts["last"]] == ["JobSetDeleted"]
    assert cluster.attempts["jobSetUid"] == "js-2"


def test_a_job_set_that_gave_up_within_the_budgets_is_made_again() -> None:
    """Its own limit is no budget of ours."""
    cluster = started()
    cluster.set_job_set(terminalState="Failed")
    cluster.pods = [ended(10), ended(9, 1)]
    cluster.settle()
    assert cluster.made == 2
    assert cluster.attempts["disruptions"] == 1


def queued() -> Cluster:
    """A job that Kueue has admitted and whose pods run."""
    cluster = Cluster(job_of(queue={"localQueue": "team"}))
    cluster.settle()
    assert cluster.status["phase"] == "Queued"
    let(cluster, suspend=False)
    cluster.run()
    cluster.settle()
    return cluster


def let(cluster: Cluster, *, suspend: bool) -> None:
    assert cluster.job_set is not None
    cluster.job_set = cluster.job_set | {"spec": cluster.job_set["spec"] | {"suspend": suspend}}


def test_an_eviction_costs_nothing() -> None:
    """Kueue takes its quota back: told with its words, counted apart, and the attempt goes on when admitted again."""
    cluster = queued()
    let(cluster, suspend=True)
    told = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "a job of higher priority came"}
    cluster.workload = {"status": {"conditions": [told]}}
    cluster.pods = [replace(ended(10, host), asked=True, gone=True) for host in (0, 1)]
    for _ in range(3):
        cluster.settle()
    (attempt,) = cluster.attempts["last"]
    assert (attempt["class"], attempt["message"]) == ("Eviction", "Preempted: a job of higher priority came")
    assert [cluster.attempts[key] for key in ("evictions", "restarts", "disruptions")] == [1, 0, 0]
    assert cluster.status["phase"] == "Queued"
    let(cluster, suspend=False)
    cluster.run()
    cluster.settle()
    assert cluster.status["phase"] == "Running"
    assert cluster.made == 1


def test_reasons_have_words_of_their_own() -> None:
    """No two members of the table are spelled alike, and each says what it means."""
    assert len({reason.word for reason in Reason}) == len(list(Reason))
    assert all(reason.meaning.endswith(".") for reason in Reason)
