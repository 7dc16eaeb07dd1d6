"""Keys and certificates of every kind, right and wrong, made for a test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PASSWORD = "correct horse"


@dataclass(frozen=True)
class Authority:
    """A certificate authority, whose certificate is at ``file``."""

    file: Path
    key: Any
    certificate: Any


def write_pair(place: Path, name: str, key: Any, password: str | None = None) -> Path:
    """Write ``NAME.key`` and ``NAME.pub``; the first one's path."""
    lock: Any = serialization.NoEncryption()
    if password:
        lock = serialization.BestAvailableEncryption(password.encode())
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (place / f"{name}.pub").write_bytes(public)
    (place / f"{name}.key").write_bytes(private)
    return place / f"{name}.key"


def write_keys(place: Path) -> None:
    """Keys that can sign (``release``, ``other``, ``p384``, ``locked``), and that cannot (``rsa``, ``ed25519``, ``curve``)."""
    write_pair(place, "release", ec.generate_private_key(ec.SECP256R1()))
    write_pair(place, "other", ec.generate_private_key(ec.SECP256R1()))
    write_pair(place, "p384", ec.generate_private_key(ec.SECP384R1()))
    write_pair(place, "locked", ec.generate_private_key(ec.SECP256R1()), PASSWORD)
    write_pair(place, "rsa", rsa.generate_private_key(65537, 2048))
    write_pair(place, "ed25519", ed25519.Ed25519PrivateKey.generate())
    write_pair(place, "curve", ec.generate_private_key(ec.SECP256K1()))


def authority(place: Path, name: str, *, days: tuple[int, int] = (-900, 900)) -> Authority:
    """A new authority, valid from and to so many days from today."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    made = _certificate(subject, subject, key.public_key(), days)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = made.sign(key, hashes.SHA256())
    file = place / f"{name}.crt"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(file, key, certificate)


def issue(by: Authority, place: Path, name: str, *, days: tuple[int, int] = (-10, 300), signs: bool = True) -> Path:
    """Write a key and its certificate by an authority, valid from and to so many days from today; the key's path."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = _certificate(_name(name), by.certificate.subject, key.public_key(), days)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    made = made.add_extension(
        x509.KeyUsage(digital_signature=signs, **{**usage, "key_agreement": not signs}), critical=True
    )
    certificate = made.sign(by.key, hashes.SHA256())
    (place / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return write_pair(place, name, key)


def _name(name: str) -> Any:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])


def _certificate(subject: Any, issuer: Any, public_key: Any, days: tuple[int, int]) -> Any:
    now = datetime.now(timezone.utc)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    made = made.serial_number(x509.random_serial_number())
    return made.not_valid_before(now + timedelta(days=days[0])).not_valid_after(now + timedelta(days=days[1]))
