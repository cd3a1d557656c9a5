"""The JobSet restarts, the operator judges: with the real JobSet controller, by what pods really end with."""

import os

from controller.cluster.resources import JOB_SETS
from tests.controlplane.operating import Operating

SCALE = int(os.environ.get("GRPO_TEST_SCALE") or 1)
FATAL = {2: "InvalidConfig", 3: "ContractMismatch", 4: "PlanDiffers", 5: "InputNotReachable", 7: "NonFinite"}
HEALED = {
    "1": ("Failure", "TrainerFailed"),
    "6": ("Failure", "OutOfMemory"),
    "kill": ("Failure", "OutOfMemory"),
    "8": ("Failure", "Stalled"),
    "9": ("Disruption", "PeerLost"),
    "10": ("Disruption", "Preempted"),
    "127": ("Failure", "CannotStart"),
}


def test_each_exit_code_alone(operating: Operating) -> None:
    """Fatal ones end the job at once, with their reason; after the others it runs again and succeeds."""
    operating.start()
    for code in FATAL:
        operating.apply(f"ends-{code}", [[str(code)]])
    for word in HEALED:
        operating.apply(f"ends-{word}", [[word]])
    for code, reason in FATAL.items():
        operating.wait_phase(f"ends-{code}", "Failed")
        (attempt,) = operating.attempts(f"ends-{code}")
        assert operating.condition(f"ends-{code}", "Failed") == ("True", reason)
        assert (attempt["class"], attempt["exitCode"], attempt["restart"]) == ("Fatal", code, 0)
        assert attempt["message"] == f"host 0 ends attempt 0 with {code}"
    for word, (kind, reason) in HEALED.items():
        status = operating.wait_phase(f"ends-{word}", "Succeeded")
        (attempt,) = status["attempts"]["last"]
        assert (attempt["class"], attempt["reason"]) == (kind, reason)
        assert attempt["pod"].startswith(f"ends-{word}-slice-0-0-")
        spent = status["attempts"]["restarts"], status["attempts"]["disruptions"]
        assert spent == ((1, 0) if kind == "Failure" else (0, 1))


def test_a_cause_and_its_victims(operating: Operating) -> None:
    """A victim that ends first, or last, is not the cause; a fatal code of all is; a failed pod is told at once."""
    operating.start()
    operating.apply("cause-first", [["1", "deaf wait:1 9"]], hosts=2)
    operating.apply("victim-first", [["deaf wait:3 6", "9"]], hosts=2)
    operating.apply("all-fatal", [["3", "wait:0.3 3"]], hosts=2)
    told = operating.wait(lambda: operating.status("victim-first").get("attempts", {}).get("ending"), "the first end")
    assert told["reason"] == "PeerLost"
    for name, reason in (("cause-first", "TrainerFailed"), ("victim-first", "OutOfMemory")):
        status = operating.wait_phase(name, "Succeeded")
        assert [one["reason"] for one in status["attempts"]["last"]] == [reason]
        assert (status["attempts"]["restarts"], status["attempts"]["disruptions"]) == (1, 0)
    status = operating.wait_phase("all-fatal", "Failed")
    assert operating.condition("all-fatal", "Failed") == ("True", "ContractMismatch")
    assert [one["class"] for one in status["attempts"]["last"]] == ["Fatal"]
    assert "host" in operating.message("all-fatal", "Failed")


def test_what_is_taken_from_outside(operating: Operating) -> None:
    """A pod deleted by hand, one evicted from its node, a JobSet deleted by hand: disruptions, and the run goes on."""
    operating.start()
    operating.apply("deleted", [["run", "deaf wait:1 9"]], hosts=2)
    operating.apply("evicted", [["run"]])
    operating.apply("removed", [["run"]])
    for name in ("deleted", "evicted", "removed"):
        operating.wait_phase(name, "Running")
    pods = [pod for pod in operating.pods("deleted") if "-0-0-" in pod["metadata"]["name"]]
    operating.world.kubectl("-n", operating.namespace, "delete", "pod", pods[0]["metadata"]["name"], "--wait=false")
    evict(operating, operating.pods("evicted")[0]["metadata"]["name"])
    operating.api.delete(JOB_SETS, "removed", operating.namespace)
    expected = {"deleted": {"Preempted", "PeerLost"}, "evicted": {"Disrupted"}, "removed": {"JobSetDeleted"}}
    for name, reasons in expected.items():
        status = operating.wait_phase(name, "Succeeded")
        assert status["attempts"]["last"][0]["reason"] in reasons
        assert (status["attempts"]["restarts"], status["attempts"]["disruptions"]) == (0, 1)


def evict(operating: Operating, pod: str) -> None:
    path = f"/api/v1/namespaces/{operating.namespace}/pods/{pod}/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": operating.namespace}}
    operating.api.post(path, body)


def test_restarts_while_the_operator_is_down(operating: Operating) -> None:
    """The JobSet goes on by itself; who comes back counts what it did not see as unknown, each once."""
    operating.start()
    operating.apply("alone", [["wait:2 1"], ["1"], ["9"], ["run"]])
    operating.wait_phase("alone", "Running")
    operating.stop()
    operating.wait(lambda: (operating.job_set("alone") or {})["status"].get("restarts") == 3, "three restarts")
    operating.start()
    operating.wait(lambda: len(operating.attempts("alone")) == 3, "the ledger")
    ledger = operating.wait_phase("alone", "Running")["attempts"]
    assert [one["restart"] for one in ledger["last"]] == [0, 1, 2]
    assert ledger["restarts"] + ledger["disruptions"] == 3
    assert ledger["last"][0]["reason"] == "Unknown"


def test_a_run_that_is_disrupted_for_ever_ends(operating: Operating) -> None:
    """So many disruptions go on, the next ends the job, and no pod is left."""
    many = min(100, 2 * SCALE)
    operating.start()
    operating.apply("unlucky", [["10"]] * (many + 3), restart={"maxDisruptions": many})
    status = operating.wait_phase("unlucky", "Failed", seconds=60 + 10 * many)
    assert operating.condition("unlucky", "Failed") == ("True", "MaxDisruptionsReached")
    assert (status["attempts"]["restarts"], status["attempts"]["disruptions"]) == (0, many + 1)
    operating.wait(
        lambda: operating.job_set("unlucky") is None and not operating.pods("unlucky"), "the end of its pods"
    )
