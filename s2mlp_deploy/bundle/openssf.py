"""Sign and check with OpenSSF's model-signing, offline: an in-toto statement of each file's hash, in a Sigstore bundle.

The package checks the statement and the hashes. Added here: nothing but files of git and of model hubs may be left out of a signature, whatever it
says; links and special files are refused; a certificate must be valid today, not only on the day it was issued (the package
sets its clock to that day, as nothing in a signature proves when it was made).
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, manifest, signing, verifying

from s2mlp_deploy.bundle.signature import ALLOWED, SIGNATURE, SigningKey, TrustedKey
from s2mlp_deploy.errors import KeyFileError, OutputError, SignatureError
from s2mlp_deploy.system import strict_json, untrusted_input

CURVES = ("secp256r1", "secp384r1", "secp521r1")

_EXPECTED = "expected a key on the curve P-256, P-384 or P-521 as a PEM file, as made by: openssl ecparam -name prime256v1 -genkey -noout"


def sign(directory: Path, key: SigningKey, name: str) -> None:
    """Write the signature of every file at ``directory``, the model called ``name``.

    Raises:
        KeyFileError, OutputError: as :func:`s2mlp_deploy.bundle.signature.sign`.
    """
    place = directory / SIGNATURE
    if os.path.lexists(place):
        raise OutputError(
            f"the bundle has a file called {SIGNATURE}, which is the signature's name: nothing was published"
        )
    signer(key).set_hashing_config(_Named(name)).sign(directory, place)


class _Named:
    """Hashes a model, the signature apart, under another name than its directory's, which is a temporary one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def hash(self, directory: Path) -> manifest.Manifest:
        """The hash of each file, as :meth:`hashing.Config.hash` gives it."""
        found = _hashes(directory, [SIGNATURE, ".cache"])
        kind = manifest.SerializationType.from_args(found.serialization_type)
        items = [kind.new_item(r.identifier, r.digest) for r in found.resource_descriptors()]
        return manifest.Manifest(self._name, items, kind)


def _hashes(directory: Path, left_out: list[str]) -> manifest.Manifest:
    return hashing.Config().set_ignored_paths(paths=left_out).hash(directory)


def signer(key: SigningKey) -> signing.Config:
    """A configuration that signs with ``key``, and with its certificate where it has one.

    Raises:
        KeyFileError: where they cannot be used.
    """
    private = _private_key(key)
    if key.certificate is None:
        password: Any = key.password.encode() if key.password else None  # bytes, against what the package declares
        return signing.Config().use_elliptic_key_signer(private_key=key.key, password=password)
    if key.password is not None:
        raise KeyFileError(
            f"{key.key} is encrypted, and model-signing takes no such key with a certificate: decrypt it first"
        )
    first, *_ = _certificates(key.certificate)
    if first.public_key() != private.public_key():
        raise KeyFileError(
            f"{key.certificate}: its first certificate is not that of {key.key}: put the key's own first"
        )
    if not _may_sign(first):
        raise KeyFileError(f"{key.certificate} is not for signing: expected the usage digitalSignature or codeSigning")
    return signing.Config().use_certificate_signer(
        private_key=key.key, signing_certificate=key.certificate, certificate_chain=[key.certificate]
    )


def check(directory: Path, publisher: TrustedKey) -> str:
    """Who signed the files at ``directory``, in words.

    Raises:
        SignatureError, KeyFileError: as :func:`s2mlp_deploy.bundle.signature.check`.
    """
    verifier, who = _verifier(publisher)
    content = _read(directory / SIGNATURE)
    _refuse_other_kind(content, publisher, directory)
    _refuse_special_files(directory)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it warns of old signatures there
            verifier.verify(directory.resolve(), directory / SIGNATURE)
        left_out = set(_statement(content)["predicate"]["serialization"].get("ignore_paths", ())) - ALLOWED
        chain = _chain(content)
    except Exception as error:  # of a parser of other people's files
        raise SignatureError(_why_refused(directory, content, who, error)) from error
    if left_out:
        raise SignatureError(
            f"the signature of {directory} leaves out {', '.join(map(ascii, sorted(left_out)[:5]))}: expected one of every file. "
            "Get the bundle again from its publisher"
        )
    for one in chain:
        _refuse_expired(one, directory)
    return f"{one_line(chain[0])}, trusted by {who}" if chain else who


def _why_refused(directory: Path, content: dict[str, Any], who: str, error: Exception) -> str:
    text = str(error)
    if isinstance(error, ValueError) and text.startswith("Signature mismatch"):
        return (
            f"{directory} is not what was signed, so nothing of it was loaded ({_differences(directory, content)}). Get it again from its "
            "publisher"
        )
    reason = f" ({text[:200]})" if text.isprintable() and text else ""
    return f"the signature of {directory} is not by {who}{reason}, so nothing of it was loaded. Get the bundle from that publisher"


def _differences(directory: Path, content: dict[str, Any]) -> str:
    """The files at ``directory`` that are not as a valid signature has them, in words."""
    said = _statement(content)["predicate"]
    signed = {r["name"]: r["digest"] for r in said["resources"]}
    hashes = _hashes(directory.resolve(), said["serialization"].get("ignore_paths", []))
    found = {r.identifier: r.digest.digest_hex for r in hashes.resource_descriptors()}
    groups = {
        "added": found.keys() - signed.keys(),
        "missing": signed.keys() - found.keys(),
        "changed": {name for name in found.keys() & signed.keys() if found[name] != signed[name]},
    }
    return "; ".join(f"{how}: {', '.join(map(ascii, sorted(names)[:5]))}" for how, names in groups.items() if names)


def _verifier(publisher: TrustedKey) -> tuple[verifying.Config, str]:
    """A configuration that checks for ``publisher``, and the publisher's name."""
    if publisher.certificate is not None:
        _certificates(publisher.certificate)
        config = verifying.Config().use_certificate_verifier(certificate_chain=[publisher.certificate])
        return config, f"the authority in {publisher.certificate}"
    assert publisher.key is not None
    _public_key(publisher.key)
    return verifying.Config().use_elliptic_key_verifier(public_key=publisher.key), f"the key in {publisher.key}"


def _read(place: Path) -> dict[str, Any]:
    """The signature at ``place``, as JSON."""
    if not os.path.lexists(place):
        raise SignatureError(
            f"{place.parent} is not signed, and a key was given: get the signed bundle from its publisher"
        )
    try:
        if place.is_symlink():
            raise ValueError("it is a link")
        untrusted_input.check_regular(place)
        content = strict_json.loads(untrusted_input.read_bytes(place))
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise SignatureError(
            f"{place} is not a signature ({error}): get the bundle again from its publisher"
        ) from error


def _refuse_other_kind(content: dict[str, Any], publisher: TrustedKey, directory: Path) -> None:
    material = content.get("verificationMaterial")
    if not isinstance(material, dict):
        raise SignatureError(f"{directory / SIGNATURE} is not a signature: get the bundle again from its publisher")
    if "certificate" in material:
        raise SignatureError(
            f"{directory} was signed by Sigstore, which is checked on its network: use model_signing verify sigstore, or get a bundle "
            "that was signed with a key"
        )
    by_certificate = "x509CertificateChain" in material
    if by_certificate and publisher.key:
        raise SignatureError(
            f"{directory} was signed with a certificate, and not checked: give --certificate in place of --key"
        )
    if not by_certificate and publisher.certificate:
        raise SignatureError(f"{directory} was signed with a key that has no certificate, and not checked: give --key")


def _refuse_special_files(directory: Path) -> None:
    """Refuse links, which lead out of what was signed, and pipes, which may never end."""
    for place, folders, files in os.walk(directory):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise SignatureError(
                    f"{str(path)!a} is not a plain file, and only those are signed: get the bundle again"
                )


def _statement(content: dict[str, Any]) -> dict[str, Any]:
    statement = strict_json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
    assert isinstance(statement, dict)
    return statement


def _chain(content: dict[str, Any]) -> list[x509.Certificate]:
    """The certificates in a signature, the signer's first; none where it was made with a key alone."""
    chain = content["verificationMaterial"].get("x509CertificateChain", {}).get("certificates", [])
    return [x509.load_der_x509_certificate(base64.b64decode(one["rawBytes"])) for one in chain]


def _refuse_expired(certificate: x509.Certificate, directory: Path) -> None:
    now, first, last = datetime.now(timezone.utc), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if first <= now <= last:
        return
    raise SignatureError(
        f"{directory} was signed with the certificate {one_line(certificate)}, which holds from {first:%Y-%m-%d} to {last:%Y-%m-%d}, and this "
        f"machine's clock shows {now:%Y-%m-%d}: set the clock, or get a bundle with a new signature"
    )


def one_line(certificate: x509.Certificate) -> str:
    """The subject of ``certificate``, without characters that a terminal would act on."""
    return ascii(certificate.subject.rfc4514_string())[1:-1]


def _may_sign(certificate: x509.Certificate) -> bool:
    for kind in (x509.KeyUsage, x509.ExtendedKeyUsage):
        with contextlib.suppress(x509.ExtensionNotFound):
            usage = certificate.extensions.get_extension_for_class(kind).value
            if isinstance(usage, x509.KeyUsage) and usage.digital_signature:
                return True
            if isinstance(usage, x509.ExtendedKeyUsage) and x509.oid.ExtendedKeyUsageOID.CODE_SIGNING in usage:
                return True
    return False


def _private_key(key: SigningKey) -> ec.EllipticCurvePrivateKey:
    password = key.password.encode() if key.password else None
    with _readable(key.key, f"{_EXPECTED}. The password of an encrypted one is taken from S2MLP_SIGN_PASSWORD"):
        found = serialization.load_pem_private_key(key.key.read_bytes(), password)
        if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name not in CURVES:
            raise ValueError("it is of another kind")
    return found


def _public_key(path: Path) -> None:
    with _readable(path, f"{_EXPECTED}, and its public part by: openssl ec -in KEY.pem -pubout"):
        found = serialization.load_pem_public_key(path.read_bytes())
        if not isinstance(found, ec.EllipticCurvePublicKey) or found.curve.name not in CURVES:
            raise ValueError("it is of another kind")


def _certificates(path: Path) -> list[x509.Certificate]:
    with _readable(path, "expected certificates as a PEM file"):
        found: list[x509.Certificate] = x509.load_pem_x509_certificates(path.read_bytes())
    return found


@contextlib.contextmanager
def _readable(path: Path, expected: str) -> Iterator[None]:
    """Turn what goes wrong with the user's key or certificate into an error that says what was expected."""
    try:
        yield
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror}. {expected[0].upper()}{expected[1:]}") from error
    except Exception as error:  # TypeError for passwords, ValueError and others for contents
        raise KeyFileError(
            f"cannot use {path} ({str(error).splitlines()[0] if str(error) else 'unreadable'}): {expected}"
        ) from error
