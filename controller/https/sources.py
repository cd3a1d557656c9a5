"""Where the serving certificate comes from: a Secret that the replicas share and renew, or files that others renew.

In: a client of the API server, or a folder. Out: the certificate to serve now. The Secret is written under optimistic
locking: of replicas that renew at once one wins, and the others take what it wrote.
"""

import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from controller.https.certificates import Certificate, issue, read_files, why_renew
from controller.runtime.client import Api, ApiError, Resource

SECRETS = Resource("", "v1", "secrets", "Secret")
PARTS = {"chain": "tls.crt", "key": "tls.key", "authorities": "ca.crt"}
ATTEMPTS = 5

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class Source(Protocol):
    """What a door asks, at its start and from time to time; soon again while it is not `settled`."""

    @property
    def settled(self) -> bool:
        """Whether clients have been told all that they need."""

    def current(self) -> Certificate:
        """The certificate to serve from now on. Raises ApiError or OSError where there is none to be had."""


@dataclass(frozen=True, slots=True)
class MountedSource:
    """Files below `folder`, such as cert-manager's Secret mounted: who writes them renews them and is trusted."""

    folder: Path

    @property
    def settled(self) -> bool:
        return True

    def current(self) -> Certificate:
        return read_files(self.folder)


@dataclass(slots=True)
class SecretSource:
    """A Secret of the operator's own.

    `announce` tells clients the authorities, before what they signed is served; where it fails they are told next time,
    and until then it is not `settled`.
    """

    api: Api
    namespace: str
    secret: str
    host_names: Sequence[str]
    announce: Callable[[bytes], object] = lambda authorities: None
    now: Callable[[], datetime] = _now
    settled: bool = False

    def current(self) -> Certificate:
        certificate = self._read_or_renew()
        try:
            self.announce(certificate.authorities)
            self.settled = True
        except ApiError as error:
            self.settled = False
            log.warning("clients do not know yet whom to trust: %s", error)
        return certificate

    def _read_or_renew(self) -> Certificate:
        for _ in range(ATTEMPTS):
            held = self._held()
            certificate = _unpacked(held)
            reason = why_renew(certificate, self.host_names, self.now())
            if reason is None:
                return certificate
            try:
                return self._renew(held, certificate.authorities, reason)
            except ApiError as error:
                if not (error.is_conflict or error.already_exists or error.is_not_found):
                    raise
        raise ApiError(409, "Conflict", f"Secret {self.secret} changed each time it was read")

    def _held(self) -> dict[str, Any] | None:
        try:
            return self.api.get(SECRETS, self.secret, self.namespace)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    def _renew(self, held: dict[str, Any] | None, trusted: bytes, reason: str) -> Certificate:
        certificate = issue(self.host_names, self.now(), trusted)
        body = {
            "apiVersion": SECRETS.api_version,
            "kind": SECRETS.kind,
            "metadata": {"name": self.secret, "namespace": self.namespace},
            "type": "kubernetes.io/tls",
        } | (held or {})
        body["data"] = {key: base64.b64encode(getattr(certificate, part)).decode() for part, key in PARTS.items()}
        if held is None:
            self.api.create(SECRETS, body, self.namespace)
        else:
            self.api.replace(SECRETS, body, self.namespace)
        log.info("wrote a new certificate into Secret %s/%s: %s", self.namespace, self.secret, reason)
        return certificate


def _unpacked(secret: dict[str, Any] | None) -> Certificate:
    data = (secret or {}).get("data") or {}
    try:
        return Certificate(**{part: base64.b64decode(data.get(key, "")) for part, key in PARTS.items()})
    except (binascii.Error, ValueError):
        return Certificate(b"", b"", b"")
