"""The two places where others speak to the operator: the API server's webhook, and the trainers' endpoint.

In: options and what the operator knows. Out: parts that start and stop with it. Both serve one certificate, whose names
are those of their Services.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from controller.cluster.watching import Watching
from controller.https.door import Door
from controller.https.server import Service
from controller.https.sources import MountedSource, SecretSource, Source
from controller.operator.options import Options, Place
from controller.progress import endpoint
from controller.progress.callers import TOKEN_REVIEWS, Callers
from controller.progress.reaching import Lead, Trust
from controller.progress.reports import Reports
from controller.runtime.client import Api, ApiError
from controller.webhook.admission import Admission
from controller.webhook.registration import trust

SECRET = "secret:"  # noqa: S105 - a prefix

log = logging.getLogger(__name__)


def progress_url(options: Options) -> str | None:
    """Where pods report to, None where nobody listens."""
    if options.progress is None:
        return None
    service = f"{options.progress_service}.{options.own_namespace}.svc"
    return options.progress_url or f"https://{service}{endpoint.PATH}"


class Doors:
    """`leads` tells whether this replica reads reports; `changed(key)` is called when one says something new."""

    def __init__(
        self, options: Options, api: Api, watching: Watching, leads: Callable[[], bool], reports: Reports
    ) -> None:
        self._options, self._api = options, api
        self._reports = reports
        callers = Callers(lambda review: api.post(TOKEN_REVIEWS, review), watching.pods.get, watching.jobs.get)
        served: list[tuple[Place | None, Service]] = [
            (options.webhook, Admission()),
            (options.progress, endpoint.Endpoint(callers, reports, leads)),
        ]
        source = self._source()
        self.doors = [Door(source, place[0], place[1], service) for place, service in served if place is not None]
        self._trust = Trust(api, lambda: self.doors[-1].authorities)

    def start(self) -> None:
        for door in self.doors:
            door.start()

    def stop(self) -> None:
        for door in self.doors:
            door.stop()

    @property
    def fault(self) -> str | None:
        return next((door.fault for door in self.doors if door.fault), None)

    def prepare(self, namespace: str) -> None:
        """Pods there are told whom to trust; a job does not wait for it."""
        if self._options.progress is None or not self.doors[-1].authorities:
            return
        try:
            self._trust.reach(namespace)
        except ApiError as error:
            log.warning("pods in %s do not know yet whom to trust: %s", namespace, error)

    def lead(self) -> None:
        """Reports come to this replica from now on."""
        options = self._options
        if options.progress is None or options.pod_address is None:
            return
        place = options.own_namespace, options.progress_service, options.pod_address, options.progress[1]
        try:
            Lead(self._api, *place).take()
        except ApiError as error:
            log.warning("reports do not reach this replica: %s", error)

    def _source(self) -> Source:
        options = self._options
        if not options.certificates.startswith(SECRET):
            return MountedSource(Path(options.certificates))
        hosts = [f"{options.webhook_service}.{options.own_namespace}.svc"]
        url = progress_url(options)
        hosts += [host for host in [urlsplit(url or "").hostname] if host]
        return SecretSource(
            self._api,
            options.own_namespace,
            options.certificates.removeprefix(SECRET),
            tuple(dict.fromkeys(hosts)),
            announce=self._announce,
            now=self._api.clock.now,
        )

    def _announce(self, authorities: bytes) -> None:
        if self._options.webhook_configuration is not None:
            trust(self._api, self._options.webhook_configuration, authorities)
