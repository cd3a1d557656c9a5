"""The CRD on a real API server: what it takes from which client, what cannot change, and what kubectl shows."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from tests.controlplane.admission import Client, Json, install_crd, job_of
from tests.controlplane.world import World

FIXED = "stays as it was when the job was made; make another job to change it"


@pytest.fixture(scope="module")
def namespace(world: World) -> Iterator[str]:
    """One for the file, where the server accepts the CRD: structural, its rules within the cost that they may have."""
    install_crd(world)
    world.kubectl("create", "namespace", "crd")
    yield "crd"
    world.kubectl("delete", "namespace", "crd", "--wait=false")


@pytest.fixture(scope="module")
def raw(world: World) -> Iterator[Client]:
    found = Client(world)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def no_job(raw: Client, namespace: str) -> Iterator[None]:
    """What a test made goes with it."""
    yield
    raw.send("DELETE", f"/apis/grpo.dev/v1alpha1/namespaces/{namespace}/grpojobs", {})


Send = Callable[[World, str, Json], str]
"""Sends a job into a namespace; what the client was told where it was refused, else nothing."""


def by_kubectl(*arguments: str) -> Send:
    def send(world: World, namespace: str, job: Json) -> str:
        done = world.kubectl("-n", namespace, *arguments, "-f", "-", stdin=yaml.safe_dump(job))
        return done.stderr if done.returncode else ""

    return send


def by_python(world: World, namespace: str, job: Json) -> str:
    """The official client, which asks for no validation of its own."""
    with config.new_client_from_config(str(world.kubeconfig)) as api:
        try:
            client.CustomObjectsApi(api).create_namespaced_custom_object(
                "grpo.dev", "v1alpha1", namespace, "grpojobs", job
            )
        except client.ApiException as error:
            return str(json.loads(error.body)["message"])
    return ""


def by_post(world: World, namespace: str, job: Json) -> str:
    found = Client(world)
    answer = found.create(namespace, job)
    found.close()
    return "" if answer.status == 201 else answer.message


CLIENTS: dict[str, Send] = {
    "kubectl apply": by_kubectl("apply"),
    "kubectl create": by_kubectl("create"),
    "kubectl apply --server-side": by_kubectl("apply", "--server-side"),
    "the Python client": by_python,
    "a raw post": by_post,
}
STRICT = {name for name in CLIENTS if name.startswith("kubectl")}
NULLS: dict[str, Any] = {
    "rollout": {"batchSize": 96, "promptBatchSize": None, "numPreQ": None},
    "tpu": None,
    "lora": None,
    "imagePullPolicy": None,
    "rewards": None,
    "env": [{"name": "A", "value": "b", "valueFrom": None}],
    "podLabels": {"a": None, "b": "c"},
    "suspend": None,
    "optimizer": None,
    "code": None,
}


def stored(raw: Client, namespace: str) -> Json:
    found: Json = raw.send("GET", f"/apis/grpo.dev/v1alpha1/namespaces/{namespace}/grpojobs/job", {}).body["spec"]
    return found


@pytest.mark.parametrize("name", CLIENTS)
def test_null_is_absent_for_every_client(world: World, namespace: str, raw: Client, name: str) -> None:
    """Nulls are taken by all; what has a default gets it, and the batch is not filled in."""
    assert CLIENTS[name](world, namespace, job_of("job", **NULLS)) == ""

    spec = stored(raw, namespace)
    assert (spec["suspend"], spec["rollout"]["numPreQ"], spec["optimizer"]["name"]) == (False, 8, "adamw")
    assert spec["rollout"].get("promptBatchSize") is None
    assert spec.get("tpu") is None
    assert [spec["podLabels"].get(key) for key in ("a", "b")] == [None, "c"]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_whole_float_is_a_whole_number_for_every_client(world: World, namespace: str, raw: Client, name: str) -> None:
    """8.0 is stored as 8."""
    assert CLIENTS[name](world, namespace, job_of("job", steps=8.0, rollout={"batchSize": 96.0})) == ""

    spec = stored(raw, namespace)
    assert (str(spec["steps"]), str(spec["rollout"]["batchSize"])) == ("8", "96")


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize("value", [True, "8", 8.5], ids=str)
def test_no_client_can_pass_off_something_else_as_a_number(
    world: World, namespace: str, name: str, value: object
) -> None:
    """Booleans, text and fractions are refused at their path."""
    assert "spec.steps" in CLIENTS[name](world, namespace, job_of("job", steps=value))


@pytest.mark.parametrize("name", CLIENTS)
def test_an_unknown_key_is_refused_by_strict_clients_and_dropped_for_others(
    world: World, namespace: str, name: str, raw: Client
) -> None:
    """Only kubectl and server-side apply refuse it; a client that asks for no validation is warned."""
    told = CLIENTS[name](world, namespace, job_of("job", step=8))
    if name in STRICT:
        assert "step" in told
        return
    assert told == ""
    assert "step" not in stored(raw, namespace)
    assert raw.create(namespace, job_of("other", step=8), "?dryRun=All").warnings == ('unknown field "spec.step"',)


def test_what_cannot_change_is_told_at_its_key(world: World, namespace: str, raw: Client) -> None:
    """All of spec but suspend, three deadlines, and the queue of a suspended job."""
    rewards = [{"name": "correct", "args": {"a": 1}}]
    assert raw.create(namespace, job_of("job", rewards=rewards, podLabels={"a": "b"})).status == 201
    for path, change in (
        ("spec.steps", {"steps": 7}),
        ("spec.rollout.batchSize", {"rollout": {"batchSize": 104}}),
        ("spec.rollout.promptBatchSize", {"rollout": {"promptBatchSize": 12}}),
        ("spec.lora", {"lora": {}}),
        ("spec.cpu.hosts", {"cpu": {"hosts": 2}}),
        ("spec.rewards", {"rewards": [{"name": "correct", "args": {"a": 2}}]}),
        ("spec.data.chatTemplateKwargs", {"data": {"chatTemplateKwargs": {"a": 1}}}),
        ("spec.podLabels", {"podLabels": {"a": "c"}}),
        ("spec.lifecycle.terminationGracePeriodSeconds", {"lifecycle": {"terminationGracePeriodSeconds": 1}}),
    ):
        answer = raw.patch(namespace, "job", {"spec": change})
        assert (answer.status, answer.message.partition(": ")[2]) == (422, f"{path}: Forbidden: {FIXED}")
    for change in (
        {"lifecycle": {"activeDeadlineSeconds": 9, "startupDeadlineSeconds": 8, "ttlSecondsAfterFinished": 7}},
        {"rollout": {"promptBatchSize": None}},
        {"suspend": True},
        {"queue": {"localQueue": "a"}},
        {"queue": {"localQueue": "b"}, "suspend": False},
    ):
        assert raw.patch(namespace, "job", {"spec": change}).status == 200, change
    refused = raw.patch(namespace, "job", {"spec": {"queue": {"localQueue": "c"}}}).message
    assert refused.endswith(
        "spec.queue: Forbidden: may be changed while the job is suspended only; set suspend: true first"
    )


def test_what_was_created_with_nulls_can_be_applied(world: World, namespace: str) -> None:
    """`kubectl create`, then `kubectl apply` of the same file, which drops its nulls: nothing has changed."""
    nulls = {key: value for key, value in NULLS.items() if key not in ("podLabels", "env")}
    job = yaml.safe_dump(job_of("job", **nulls))
    for arguments in (("create",), ("apply",), ("apply", "--server-side", "--force-conflicts")):
        done = world.kubectl("-n", namespace, *arguments, "-f", "-", stdin=job)
        assert done.returncode == 0, done.stderr


def test_kubectl_tells_what_a_key_is(world: World) -> None:
    """`kubectl explain` gives type and description, in the spelling of a job."""
    told = world.kubectl("explain", "grpojob.spec.rollout.batchSize").stdout
    assert "FIELD: batchSize <integer>" in told
    assert "global sequences per training step" in told


def test_kubectl_tells_what_an_apply_would_change(world: World, namespace: str) -> None:
    """`kubectl diff` shows nothing after an apply, defaults or not, and the one line that changes after an edit."""
    for flags in ((), ("--server-side",)):
        assert by_kubectl("apply", *flags)(world, namespace, job_of("job")) == ""
        same = world.kubectl("-n", namespace, "diff", *flags, "-f", "-", stdin=yaml.safe_dump(job_of("job")))
        assert (same.returncode, same.stdout) == (0, "")
        edited = yaml.safe_dump(job_of("job", suspend=True))
        other = world.kubectl("-n", namespace, "diff", *flags, "-f", "-", stdin=edited)
        changed = [line for line in other.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        assert other.returncode == 1
        assert {"-  suspend: false", "+  suspend: true"} <= set(changed)
        assert all("suspend" in line or "generation" in line for line in changed)
        world.kubectl("-n", namespace, "delete", "grpojob", "job")


def test_kubectl_shows_where_a_job_stands(world: World, namespace: str, raw: Client) -> None:
    """The columns, from a status."""
    raw.create(namespace, job_of("job"))
    status = {"phase": "Running", "devices": "cpu 1x1", "attempts": {"restarts": 1}}
    status |= {"progress": {"step": 120, "totalSteps": 500, "display": "120/500", "rewardMean": 0.5, "eta": "1h2m"}}
    written = raw.send(
        "PATCH",
        f"/apis/grpo.dev/v1alpha1/namespaces/{namespace}/grpojobs/job/status",
        {"status": status},
        "application/merge-patch+json",
    )
    assert written.status == 200, written.message

    head, row = (line.split() for line in world.kubectl("-n", namespace, "get", "grpo").stdout.splitlines())
    assert head == ["NAME", "PHASE", "TPU", "STEP", "REWARD", "RESTARTS", "ETA", "AGE"]
    assert row[:-1] == ["job", "Running", "cpu", "1x1", "120/500", "0.5", "1", "1h2m"]
    assert "grpojob.grpo.dev/job" in world.kubectl("-n", namespace, "get", "all").stdout
