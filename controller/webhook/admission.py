"""The webhook as a service of HTTPS: an AdmissionReview as bytes in, its answer as bytes out."""

import json
from collections.abc import Mapping

from controller.https.server import Answer, Told
from controller.webhook.registration import PATH
from controller.webhook.review import NotAReviewError, review


class Admission:
    """Answers posts to `PATH`."""

    def refuses(self, method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        return None if path == PATH else Told(404, f"only {PATH} is here")

    def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            return Told(200, json.dumps(review(json.loads(body))))
        except (NotAReviewError, ValueError, RecursionError) as error:
            return Told(400, f"no AdmissionReview: {error}"[:500])
