"""Admission, pure: an AdmissionReview in, the answer out, in the words of `grpoctl validate`.

It judges what is asked for, not what changed: of that the CRD's own rules know. It has no side effects, so a dry run
is judged as a real one. What a job's owner cannot mend any more is let through: a job that goes, metadata, and rules
that the job broke before, which a newer operator brought.
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controller import names
from controller.grpojob import read_job
from controller.resolve import Outcome, resolve
from trainer.contract.violations import Violation

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"
JUDGED = ("CREATE", "UPDATE")

Json = dict[str, Any]


class NotAReviewError(ValueError):
    """What came in is no AdmissionReview of this version with a request."""


def review(asked: Any) -> Json:
    """The AdmissionReview that answers `asked`. Raises `NotAReviewError`."""
    request = _request(asked)
    violations, warnings = _judge(request)
    answer: Json = {"uid": request["uid"], "allowed": not violations}
    if warnings:
        answer["warnings"] = [str(warning) for warning in warnings]
    if violations:
        answer["status"] = _refusal(request, violations)
    return {"apiVersion": API_VERSION, "kind": KIND, "response": answer}


def _request(asked: Any) -> Mapping[str, Any]:
    if not isinstance(asked, Mapping) or asked.get("kind") != KIND:
        raise NotAReviewError(f"expected an {KIND}")
    if asked.get("apiVersion") != API_VERSION:
        raise NotAReviewError(f"expected {API_VERSION}, got {str(asked.get('apiVersion'))[:80]}")
    request = asked.get("request")
    if not isinstance(request, Mapping) or not isinstance(request.get("uid"), str):
        raise NotAReviewError("expected a request with a uid")
    if request.get("operation") in JUDGED and not isinstance(request.get("object"), Mapping):
        raise NotAReviewError("expected a request with an object")
    return request


def _judge(request: Mapping[str, Any]) -> tuple[Sequence[Violation], Sequence[Violation]]:
    operation, new, old = request.get("operation"), request.get("object"), request.get("oldObject")
    if operation not in JUDGED or not isinstance(new, Mapping):
        return (), ()
    if operation == "CREATE" or not isinstance(old, Mapping):
        outcome = judged(new)
        return outcome.violations, outcome.warnings
    if _is_going(new) or new.get("spec") == old.get("spec"):
        return (), ()
    outcome = judged(new)
    broken_before = {str(violation) for violation in judged(old).violations} if outcome.violations else set()
    return [one for one in outcome.violations if str(one) not in broken_before], outcome.warnings


def judged(job: Mapping[str, Any]) -> Outcome:
    """What every rule says of a job as the API server holds it."""
    return resolve(read_job(job))


def _is_going(job: Mapping[str, Any]) -> bool:
    metadata = job.get("metadata")
    return isinstance(metadata, Mapping) and bool(metadata.get("deletionTimestamp"))


def told(violations: Iterable[Violation]) -> str:
    """Violations in one text: a line each."""
    return "\n".join(str(violation) for violation in violations)


def _refusal(request: Mapping[str, Any], violations: Sequence[Violation]) -> Json:
    """A Status as the API server gives for an invalid object, so that clients show each violation at its path."""
    causes = [{"reason": "FieldValueInvalid", "field": one.path, "message": one.message} for one in violations]
    details = {"name": str(request.get("name", "")), "group": names.API_GROUP, "kind": names.KIND, "causes": causes}
    return {"code": 422, "reason": "Invalid", "message": told(violations), "details": details}
