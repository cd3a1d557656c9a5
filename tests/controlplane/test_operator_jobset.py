"""JobSet under a running operator: taken away and put back, its webhook dead, and another's webhook too slow."""

import json
import sys
from collections.abc import Iterator
from subprocess import Popen

import pytest

from controller.cluster.resources import JOB_SETS
from controller.webhook.registration import CONFIGURATIONS
from tests.controlplane.history import History
from tests.controlplane.looking import until
from tests.controlplane.operating import Operating

DEFINITION = f"{JOB_SETS.plural}.{JOB_SETS.group}"
SILENT_PORT = 9877
SILENT = f"import socket, time; door = socket.create_server(('127.0.0.1', {SILENT_PORT})); time.sleep(3600)"


def test_jobset_is_taken_away_and_put_back(operating: Operating) -> None:
    """Its definition is deleted, and every JobSet with it: jobs say how to install it, and go on by themselves; what
    ran has lost one attempt.
    """
    world = operating.world
    operating.start()
    operating.apply("runs", [["run"]])
    operating.apply("rests", [["run"]], suspend=True)
    operating.wait_phase("runs", "Running")
    operating.wait_phase("rests", "Suspended")
    try:
        world.remove("jobset")
        deleted = world.kubectl("delete", "crd", DEFINITION, "--timeout=60s", timeout=90)
        assert deleted.returncode == 0, deleted.stderr
        operating.apply("comes", [["0"]])
        for name in ("runs", "comes"):
            operating.wait(lambda name=name: misses_jobset(operating, name), f"what {name} waits for")
            assert "install it: kubectl apply --server-side -f https://" in operating.message(name, "Provisioned")
            assert operating.status(name)["phase"] == "Pending"
    finally:
        world.add("jobset")
    operating.wait_phase("comes", "Succeeded")
    # What is left of the old one keeps the new one's Jobs from being made; the garbage collector needs a minute.
    world.kubectl("-n", operating.namespace, "delete", "jobs", "--all", "--wait=false")
    ledger = operating.wait_phase("runs", "Succeeded")["attempts"]
    assert [one["reason"] for one in ledger["last"]] == ["JobSetDeleted"]
    assert operating.attempts("comes") == []
    assert operating.status("rests")["phase"] == "Suspended"


def misses_jobset(operating: Operating, name: str) -> bool:
    return operating.condition(name, "Provisioned") == ("False", "JobSetMissing")


def test_a_dead_webhook_of_jobset_is_told(operating: Operating) -> None:
    """JobSet's controller is down, and the API server refuses JobSets: the job says so, and runs when it is back."""
    operating.start()
    with History(operating, "waits") as history:
        operating.world.stop("jobset")
        try:
            operating.apply("waits", [["0"]])
            operating.wait(lambda: "failed calling webhook" in operating.message("waits", "Provisioned"), "the reason")
            assert operating.condition("waits", "Provisioned") == ("False", "Refused")
        finally:
            operating.world.start("jobset")
        operating.wait_phase("waits", "Succeeded")
    assert (len(history.job_sets), operating.attempts("waits")) == (1, [])


@pytest.fixture
def silent(operating: Operating) -> Iterator[str]:
    """A webhook for this namespace's JobSets that takes connections and never answers; its configuration's name."""
    name = f"silent-{operating.namespace}"
    listener = Popen(operating.world.inside(sys.executable, "-c", SILENT))
    rule = {
        "apiGroups": [JOB_SETS.group],
        "apiVersions": ["*"],
        "operations": ["CREATE"],
        "resources": [JOB_SETS.plural],
    }
    webhook = {
        "name": "silent.grpo.test",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": f"https://127.0.0.1:{SILENT_PORT}/"},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "timeoutSeconds": 1,
        "rules": [rule | {"operations": ["CREATE"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": operating.namespace}},
    }
    body = {"apiVersion": CONFIGURATIONS.api_version, "kind": CONFIGURATIONS.kind, "metadata": {"name": name}}
    operating.world.kubectl("apply", "-f", "-", stdin=json.dumps(body | {"webhooks": [webhook]}))
    yield name
    operating.world.kubectl("delete", "validatingwebhookconfiguration", name)
    listener.kill()
    listener.wait()


def test_a_webhook_that_is_slow(operating: Operating, silent: str) -> None:
    """Where it must answer the job tells whom it waits for; where it need not, JobSets are late and there is one."""
    operating.start()
    with History(operating, "slow") as history:
        operating.apply("slow", [["0"]])
        told = until(lambda: operating.message("slow", "Provisioned"), "the reason")
        assert 'failed calling webhook "silent.grpo.test"' in told, told
        change = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]
        operating.api.patch(CONFIGURATIONS, silent, None, change, kind="json")
        operating.wait_phase("slow", "Succeeded")
    assert len(history.job_sets) == 1
