"""What is remembered of pods that are gone, for how long, and which job a change is about."""

from typing import Any

from controller.cluster.watching import Watching
from controller.statustypes import AttemptsStatus

KEY = "team/demo"


def pod(name: str, restart: int = 0, job_set_uid: str = "js-1") -> dict[str, Any]:
    labels = {
        "grpo.dev/job": "demo",
        "jobset.sigs.k8s.io/jobset-uid": job_set_uid,
        "jobset.sigs.k8s.io/restart-attempt": str(restart),
    }
    metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}", "labels": labels, "resourceVersion": "1"}
    ended = {"terminated": {"exitCode": 1, "message": "it broke"}}
    return {
        "metadata": metadata,
        "status": {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": ended}]},
    }


def known(watching: Watching, *, held: bool = False) -> list[tuple[str, bool]]:
    return [(one.name, one.gone) for one in watching.pods_of(KEY, held=held)]


def test_the_last_state_of_a_pod_outlives_it() -> None:
    """Its deletion carries the exit code; it is kept until a stored status has counted its attempt."""
    changed: list[str] = []
    watching = Watching(changed.append)
    watching._see_pod(pod("a"), None)
    watching._see_pod(pod("b", restart=1), None)
    assert changed == [KEY, KEY]
    (first, _) = watching.pods_of(KEY, held=False)
    assert (first.gone, first.exit_code, first.message) == (True, 1, "it broke")
    watching.judged(KEY, AttemptsStatus(job_set_uid="js-1", judged=1))
    assert known(watching) == [("b", True)]
    watching.judged(KEY, AttemptsStatus(job_set_uid="js-2", judged=0))
    assert known(watching) == []


def test_pods_that_kueue_stopped_say_nothing_later() -> None:
    """Those seen while the JobSet is held are left out, also when their end is told after it runs again."""
    watching = Watching(lambda key: None)
    watching.pods.put(pod("a"))
    assert known(watching, held=True) == []
    watching.pods.remove(pod("a"))
    watching._see_pod(pod("a"), None)
    watching.pods.put(pod("b"))
    assert known(watching) == [("b", False)]


def test_a_job_that_is_gone_is_forgotten() -> None:
    """Nothing of it stays in memory, and its reports are told to go."""
    gone: list[str] = []
    watching = Watching(lambda key: None, gone.append)
    watching._see_pod(pod("a"), None)
    watching._see_job({"metadata": {"name": "demo", "namespace": "team", "uid": "u"}}, None)
    watching.forget(KEY)
    assert gone == ["u"]
    assert known(watching) == []
