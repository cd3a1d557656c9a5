"""Certificates: real handshakes, and each reason for a new one."""

import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.https.certificates import (
    LIFETIME,
    RENEWED_BEFORE,
    Certificate,
    ends_at,
    issue,
    server_context,
    why_renew,
)
from controller.https.sources import MountedSource

NAMES = ("grpo-operator.grpo-system.svc", "127.0.0.1")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def shake_hands(server: Certificate, authorities: bytes, name: str) -> None:
    """A handshake in memory, as the API server makes one. Raises `ssl.SSLCertVerificationError`."""
    trusting = ssl.create_default_context(cadata=authorities.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    serving = server_context(server).wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, serving):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    client.version()
    client.write(b"done")


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_trusts_the_authority_trusts_the_server(name: str) -> None:
    """The certificate holds for each of its names, addresses among them, and for no other."""
    certificate = issue(NAMES, datetime.now(UTC))

    shake_hands(certificate, certificate.authorities, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(certificate, certificate.authorities, "elsewhere.svc")


def test_before_and_after_a_renewal_both_are_trusted() -> None:
    """Until the old authority ends, clients that were told of the new one trust what either has signed."""
    now = datetime.now(UTC)
    old = issue(NAMES, now)
    new = issue(NAMES, now, old.authorities)

    for certificate in (old, new):
        shake_hands(certificate, new.authorities, NAMES[0])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(new, old.authorities, NAMES[0])
    assert len(issue(NAMES, now + 2 * LIFETIME, new.authorities).authorities) < len(new.authorities)


def test_a_new_certificate_serves_until_a_third_of_its_life_is_left() -> None:
    """It is renewed early enough for an operator that was down for weeks."""
    certificate = issue(NAMES, NOW)
    due = NOW + LIFETIME - RENEWED_BEFORE

    assert ends_at(certificate) == NOW + LIFETIME
    assert why_renew(certificate, NAMES, NOW) is None
    assert why_renew(certificate, NAMES, due - timedelta(minutes=1)) is None
    assert why_renew(certificate, NAMES, due + timedelta(minutes=1)) == "it ends soon"


def test_what_does_not_serve_is_renewed() -> None:
    """Another name, another's key or authority, a clock that was wrong, and what is no certificate at all."""
    certificate, other = issue(NAMES, NOW), issue(NAMES, NOW)

    assert why_renew(certificate, (*NAMES, "new.svc"), NOW) == "it does not name new.svc"
    assert why_renew(replace(certificate, key=other.key), NAMES, NOW) == "its key is another's"
    assert why_renew(replace(certificate, authorities=other.authorities), NAMES, NOW) == "its authority did not sign it"
    assert why_renew(certificate, NAMES, NOW - timedelta(days=1)) == "it is not valid yet"
    assert why_renew(Certificate(b"", b"", b""), NAMES, NOW) == "there is none"
    assert str(why_renew(replace(certificate, chain=b"junk"), NAMES, NOW)).startswith("it cannot be read")


def test_files_that_others_renew_are_served(tmp_path: Path) -> None:
    """As cert-manager's Secret is mounted: none at first, then what is there, then what has replaced it."""
    source = MountedSource(tmp_path)
    with pytest.raises(OSError, match=r"tls\.crt"):
        source.current()
    for certificate in (issue(NAMES, NOW), issue(NAMES, NOW)):
        for name, content in (("tls.crt", certificate.chain), ("tls.key", certificate.key)):
            (tmp_path / name).write_bytes(content)
        assert source.current() == replace(certificate, authorities=b"")
    (tmp_path / "ca.crt").write_bytes(certificate.authorities)
    assert source.current() == certificate
