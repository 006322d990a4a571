"""Certificates made for a test: an authority of its own, and what it signs, valid or expired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deployments.transport.tls import AUTHORITY, CERTIFICATE, KEY, Certificates

DAY = timedelta(days=1)
SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
"""What an authority's key is for; Python's default context asks for it from 3.13 on."""


def named(name: str) -> x509.Name:
    """Return a subject of this name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def in_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as a file holds it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its key and its own certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def made(cls) -> Authority:
        """Create an authority, which nobody trusts yet."""
        key = ec.generate_private_key(ec.SECP256R1())
        unsigned = _unsigned("authority", key, key, valid_until=datetime.now(UTC) + DAY)
        unsigned = unsigned.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        unsigned = unsigned.add_extension(SIGNS, critical=True)
        return cls(key, unsigned.sign(key, hashes.SHA256()))

    def write(self, folder: Path, *, expired: bool = False) -> Certificates:
        """Write a folder with a certificate signed by this authority, its key, and the authority's certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = datetime.now(UTC) + (-DAY if expired else DAY)
        signed = _unsigned("punctual", key, self.key, valid_until=until).sign(self.key, hashes.SHA256())
        folder.mkdir(exist_ok=True)
        (folder / AUTHORITY).write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        (folder / CERTIFICATE).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        (folder / KEY).write_bytes(in_pem(key))
        return Certificates(folder)


def _unsigned(
    subject: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, valid_until: datetime
) -> x509.CertificateBuilder:
    """Return a certificate to sign. All authorities share one name, as a chart's do; identifiers tell keys apart."""
    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named("authority"))
        .public_key(key.public_key())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_until - 3 * DAY)
        .not_valid_after(valid_until)
    )
