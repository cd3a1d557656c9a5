"""Certificates: names and a moment in, an authority and a serving certificate out, and whether one still serves.

The authority signs once and its key is forgotten: nobody can sign with it again, and a renewal makes a new one. While
a replica may still show the old certificate, clients trust both: `authorities` holds every one that has not ended. It
knows no cluster and keeps nothing.
"""

import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=365)
RENEWED_BEFORE = LIFETIME / 3
CLOCKS_DIFFER = timedelta(minutes=5)
SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A serving certificate with its key, and the authorities that clients are to trust; all PEM."""

    chain: bytes
    key: bytes
    authorities: bytes


def issue(host_names: Sequence[str], now: datetime, trusted_before: bytes = b"") -> Certificate:
    """A certificate for names and addresses, by a new authority; those of `trusted_before` that last are trusted on."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key, now)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "grpo-operator")])
    signed = (
        _builder(subject, authority.subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_host(name) for name in host_names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_signed_by(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    lasting = [one for one in _read(trusted_before) if one.not_valid_after_utc > now]
    return Certificate(
        chain=_pem([signed]),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        authorities=_pem([authority, *lasting]),
    )


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """Named with its first moment: of two authorities of one name, a client might try the wrong one only."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"grpo-operator authority {now:%Y-%m-%dT%H:%M:%SZ}")])
    return (
        _builder(subject, subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(SIGNS, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + LIFETIME)
    )


def _signed_by(key: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem) if pem.strip() else []


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def why_renew(certificate: Certificate, host_names: Sequence[str], now: datetime) -> str | None:
    """Why a new certificate is due; None while this one serves. What cannot be read is due too."""
    if not certificate.chain:
        return "there is none"
    try:
        serving, authorities = _read(certificate.chain)[0], _read(certificate.authorities)
        key = serialization.load_pem_private_key(certificate.key, password=None)
        held = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        serving.verify_directly_issued_by(authorities[0])
    except (ValueError, TypeError, IndexError, x509.ExtensionNotFound) as error:
        return f"it cannot be read: {error}"
    except InvalidSignature:
        return "its authority did not sign it"
    if key.public_key() != serving.public_key():
        return "its key is another's"
    if missing := [name for name in host_names if _host(name) not in held]:
        return f"it does not name {', '.join(missing)}"
    if now < serving.not_valid_before_utc:
        return "it is not valid yet"
    return "it ends soon" if now > serving.not_valid_after_utc - RENEWED_BEFORE else None


def ends_at(certificate: Certificate) -> datetime:
    """When the serving certificate ends. Raises ValueError where it cannot be read."""
    return _read(certificate.chain)[0].not_valid_after_utc


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """TLS 1.2 or newer with this certificate. Raises `ssl.SSLError` where certificate and key do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The standard library reads certificates from files only: this folder is the owner's alone, and gone at once.
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "pair.pem"
        pair.write_bytes(certificate.key + b"\n" + certificate.chain)
        context.load_cert_chain(pair)
    return context


def read_files(folder: Path) -> Certificate:
    """tls.crt, tls.key and, where it is there, ca.crt, as cert-manager's Secret is mounted. Raises OSError."""
    authorities = folder / "ca.crt"
    return Certificate(
        chain=(folder / "tls.crt").read_bytes(),
        key=(folder / "tls.key").read_bytes(),
        authorities=authorities.read_bytes() if authorities.exists() else b"",
    )
