"""Who posts: a token becomes the job that its pod trains, or the reason why it does not.

In: a bearer token. Out: a `Teller`. The API server judges the token (TokenReview, for our audience) and names the pod
that it is bound to; that pod must be known, be the one of that uid, and be process 0 of a GRPOJob that exists. Labels
are trusted: who may create pods in a namespace may speak for its jobs.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controller import names
from controller.progress.reports import Teller
from trainer.contract.report import AUDIENCE

Body = dict[str, Any]

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - an address
KNOWN_SECONDS, REFUSED_SECONDS = 60.0, 10.0
"""So long is an answer of the API server believed: a pod that is gone is no longer in the store anyway."""
MOST_KEPT = 10_000
MOST_AT_ONCE = 8
"""Reviews under way: more would let anybody keep the API server busy."""

_ACCOUNT = "system:serviceaccount:"
_EXTRA = "authentication.kubernetes.io/"
JOB_INDEX = "jobset.sigs.k8s.io/job-index"
JOB_SET_UID = "jobset.sigs.k8s.io/jobset-uid"
RESTART = "jobset.sigs.k8s.io/restart-attempt"
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"


class RefusalError(Exception):
    """A status of HTTP and a sentence, which the trainer logs."""

    def __init__(self, status: int, words: str, retry_after: int | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.retry_after = status, words, retry_after


@dataclass(frozen=True, slots=True)
class PodName:
    """What a token is bound to."""

    namespace: str
    name: str
    uid: str


class Callers:
    """`review` posts a TokenReview; `pod` and `job` look up `namespace/name` in what is watched."""

    def __init__(
        self,
        review: Callable[[Body], Body],
        pod: Callable[[str], Body | None],
        job: Callable[[str], Body | None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._review, self._pod, self._job, self._now = review, pod, job, now
        self._known: OrderedDict[bytes, tuple[PodName | None, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._under_way = threading.Semaphore(MOST_AT_ONCE)

    def teller(self, token: str) -> Teller:
        """Raises `RefusalError`."""
        bound = self._bound(token)
        if bound is None:
            raise RefusalError(401, f"the token is not a pod's for the audience {AUDIENCE}, or has expired")
        pod = self._pod(f"{bound.namespace}/{bound.name}")
        if pod is None or pod["metadata"]["uid"] != bound.uid:
            raise RefusalError(403, f"pod {bound.name} in {bound.namespace} is not one of a GRPOJob")
        return self._of_pod(bound, pod["metadata"])

    def _of_pod(self, bound: PodName, metadata: Body) -> Teller:
        labels = metadata.get("labels", {})
        key = f"{bound.namespace}/{labels.get(names.LABEL_JOB)}"
        job = self._job(key)
        if job is None:
            raise RefusalError(403, f"pod {bound.name} belongs to the GRPOJob {key}, and there is none")
        if (labels.get(JOB_INDEX), labels.get(COMPLETION_INDEX)) != ("0", "0"):
            raise RefusalError(403, f"pod {bound.name} is not process 0 of {key}, which speaks for all")
        restart = labels.get(RESTART, "0")
        return Teller(
            job_uid=job["metadata"]["uid"],
            key=key,
            pod_uid=bound.uid,
            job_set_uid=labels.get(JOB_SET_UID, ""),
            restart=int(restart) if restart.isdecimal() else 0,
        )

    def _bound(self, token: str) -> PodName | None:
        """None where the API server does not know the token, asked once in a while."""
        digest = hashlib.sha256(token.encode()).digest()
        with self._lock:
            known = self._known.get(digest)
        if known is not None and self._now() < known[1]:
            return known[0]
        if not self._under_way.acquire(blocking=False):
            raise RefusalError(503, "too many tokens are being looked at", retry_after=5)
        try:
            bound = _pod_of(self._review(_asked(token)))
        finally:
            self._under_way.release()
        with self._lock:
            self._known[digest] = bound, self._now() + (KNOWN_SECONDS if bound else REFUSED_SECONDS)
            self._known.move_to_end(digest)
            while len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)
        return bound


def _asked(token: str) -> Body:
    spec = {"token": token, "audiences": [AUDIENCE]}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}


def _pod_of(review: Body) -> PodName | None:
    """A cluster that knows no audiences gives none back, and its yes is not for us."""
    status = review.get("status", {})
    user = status.get("user", {})
    extra, name = user.get("extra", {}), user.get("username", "")
    pod, uid = extra.get(f"{_EXTRA}pod-name"), extra.get(f"{_EXTRA}pod-uid")
    told = status.get("authenticated") and AUDIENCE in status.get("audiences", ())
    if not (told and name.startswith(_ACCOUNT) and pod and uid):
        return None
    return PodName(name.removeprefix(_ACCOUNT).partition(":")[0], pod[0], uid[0])
