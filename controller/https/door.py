"""A server with its certificate, as one part of the operator: it gets one, serves, and takes the next by itself.

In: a source of certificates, a place to listen, and what is served there. Every replica serves.
"""

import logging
import threading
from datetime import UTC, datetime

from controller.https.certificates import Certificate, ends_at, server_context
from controller.https.server import Limits, Server, Service
from controller.https.sources import Source
from controller.runtime.client import ApiError

LOOK_SECONDS = 60.0
SOON_SECONDS = 2.0
"""While there is no certificate yet, or clients could not be told whom to trust."""
STOP_SECONDS = 5.0

log = logging.getLogger(__name__)


class Door:
    """Starts and stops with the operator. It is `ready` while it serves a certificate that lasts."""

    def __init__(
        self,
        source: Source,
        host: str,
        port: int,
        service: Service,
        look_seconds: float = LOOK_SECONDS,
        limits: Limits | None = None,
    ) -> None:
        self._source, self._host, self._port, self._service = source, host, port, service
        self._look_seconds, self._limits = look_seconds, limits
        self._certificate: Certificate | None = None
        self._server: Server | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="https-certificates", daemon=True)

    @property
    def ready(self) -> bool:
        return self.fault is None

    @property
    def fault(self) -> str | None:
        """Why clients are not served, None where they are."""
        if self._certificate is None:
            return f"port {self._port} has no certificate yet"
        if datetime.now(UTC) < (end := ends_at(self._certificate)):
            return None
        return f"the certificate of port {self._port} ended at {end:%Y-%m-%d %H:%M} UTC, and there is no newer one"

    @property
    def authorities(self) -> bytes:
        """Whom clients are to trust, PEM; nothing while there is no certificate."""
        return self._certificate.authorities if self._certificate else b""

    @property
    def address(self) -> tuple[str, int] | None:
        """Where it listens, once it does."""
        return self._server.address if self._server else None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(STOP_SECONDS)
        if self._server is not None:
            self._server.stop()

    def _keep(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            try:
                self._serve(self._source.current())
                if self.fault:
                    log.warning("%s", self.fault)
            except (ApiError, OSError, ValueError) as error:
                log.warning("port %d has no new certificate: %s", self._port, error)
            settled = self._server is not None and self._source.settled
            pause = self._look_seconds if settled else min(SOON_SECONDS, self._look_seconds)

    def _serve(self, certificate: Certificate) -> None:
        """With this certificate from now on. Raises OSError where it does not fit, or where the port is taken."""
        if certificate == self._certificate:
            return
        context = server_context(certificate)
        if self._server is None:
            self._server = Server(self._host, self._port, context, self._service, self._limits)
            self._server.start()
            log.info("HTTPS on %s port %d", *self._server.address)
        self._server.use(context)
        self._certificate = certificate
