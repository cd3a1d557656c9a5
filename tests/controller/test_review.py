"""Admission: the answer to an AdmissionReview, in the words of `grpoctl validate`."""

import copy
from pathlib import Path
from typing import Any

import pytest

from controller.commands.documents import judge_files
from controller.webhook.review import NotAReviewError, review
from trainer.contract.documents import load_documents

HERE = Path(__file__).parent
REFUSED = [path for path in sorted((HERE / "refused").glob("*.yaml")) if not path.name.startswith("yaml")]
ACCEPTED = sorted((HERE / "accepted").glob("*.yaml"))
VALID: dict[str, Any] = {
    "apiVersion": "grpo.dev/v1alpha1",
    "kind": "GRPOJob",
    "metadata": {"name": "demo"},
    "spec": {"modelPath": "Qwen/Qwen2.5-0.5B-Instruct", "cpu": {"hosts": 1}, "rollout": {"batchSize": 16}},
}


def asked(new: Any, old: Any = None) -> dict[str, Any]:
    request = {"uid": "abc", "name": "demo", "operation": "CREATE" if old is None else "UPDATE", "object": new}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request | {"oldObject": old}}


def answered(new: Any, old: Any = None) -> dict[str, Any]:
    found = review(asked(new, old))
    assert (found["apiVersion"], found["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = found["response"]
    assert response["uid"] == "abc"
    return response


def changed(**spec: Any) -> dict[str, Any]:
    job = copy.deepcopy(VALID)
    job["spec"] |= spec
    return job


def jobs_of(path: Path) -> list[tuple[dict[str, Any], list[str], list[str]]]:
    """Each job of a file with what `grpoctl validate` says of it: violations and warnings."""
    documents = load_documents(path.read_text(encoding="utf-8"), path.name)
    return [
        (
            documents[judged.document].data,
            [str(violation) for violation in judged.violations],
            [str(warning) for warning in judged.warnings],
        )
        for judged in judge_files([str(path)], ())
        if judged.job is not None
    ]


@pytest.mark.parametrize("path", [*REFUSED, *ACCEPTED], ids=lambda path: path.stem)
def test_the_webhook_says_what_validate_says(path: Path) -> None:
    """A job is refused with all its violations, a line each and each at its path, or let in with its warnings."""
    for job, violations, warnings in jobs_of(path):
        response = answered(job)

        assert response["allowed"] is (not violations)
        assert response.get("warnings", []) == warnings
        if violations:
            status = response["status"]
            assert (status["code"], status["reason"]) == (422, "Invalid")
            assert status["message"] == "\n".join(violations)
            at_paths = [f"{cause['field']}: {cause['message']}" for cause in status["details"]["causes"]]
            assert at_paths == violations


def test_a_change_is_judged_too() -> None:
    """What an update would break is refused."""
    response = answered(changed(lifecycle={"startupDeadlineSeconds": 20, "activeDeadlineSeconds": 10}), VALID)

    assert response["allowed"] is False
    assert "spec.lifecycle.startupDeadlineSeconds" in response["status"]["message"]


def test_a_job_whose_spec_stays_is_let_through() -> None:
    """Labels and finalizers of a job that breaks a rule can be changed: what is wrong with it is the same as before."""
    broken = changed(rollout={"batchSize": 100})
    labelled = copy.deepcopy(broken)
    labelled["metadata"]["labels"] = {"team": "a"}

    assert answered(labelled, broken) == {"uid": "abc", "allowed": True}


def test_a_job_that_goes_is_let_through() -> None:
    """Nothing keeps a job that is being deleted."""
    going = changed(rollout={"batchSize": 100})
    going["metadata"] = {"name": "demo", "deletionTimestamp": "2026-01-01T00:00:00Z"}

    assert answered(going, VALID)["allowed"] is True


def test_a_rule_that_was_broken_before_holds_nobody_up() -> None:
    """A job that a newer operator would refuse can still be suspended; a rule broken anew is refused alone."""
    old = changed(rollout={"batchSize": 100})
    suspended = changed(rollout={"batchSize": 100}, suspend=True)
    worse = changed(rollout={"batchSize": 100}, lifecycle={"startupDeadlineSeconds": 20, "activeDeadlineSeconds": 10})

    assert answered(suspended, old)["allowed"] is True
    (cause,) = answered(worse, old)["status"]["details"]["causes"]
    assert cause["field"] == "spec.lifecycle.startupDeadlineSeconds"


def test_what_is_not_judged_is_let_through() -> None:
    """A deletion has no object, and needs no rule."""
    request = {"uid": "abc", "operation": "DELETE", "oldObject": VALID}
    found = review({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})

    assert found["response"] == {"uid": "abc", "allowed": True}


def test_a_secret_is_not_repeated() -> None:
    """A refusal does not carry the secret that it refuses into logs."""
    response = answered(changed(env=[{"name": "HF_TOKEN", "value": "hf_abcdefghijkl"}]))

    assert response["allowed"] is False
    assert "hf_abcdefghijkl" not in str(response)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"kind": "Pod"},
        {"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "a"}},
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"},
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {}},
        asked(None) | {"request": {"uid": "a", "operation": "CREATE", "object": 7}},
    ],
)
def test_anything_else_is_no_review(body: Any) -> None:
    """What is no AdmissionReview is told so, and not judged."""
    with pytest.raises(NotAReviewError):
        review(body)
