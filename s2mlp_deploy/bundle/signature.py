"""Signatures of bundles: they show who published the files, where hashes alone show that nobody damaged them.

A signature is OpenSSF's for models: a file in the bundle, which covers every other file in it. Making and checking one
needs the package model-signing (:mod:`s2mlp_deploy.bundle.openssf`), a key and no network.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.system.dependencies import pip_install

SIGNATURE = "model.sig"

ALLOWED = frozenset({SIGNATURE, ".cache", ".git", ".gitattributes", ".github", ".gitignore"})
"""The only files of a directory that a signature may leave out: itself, and those that git and model hubs add."""


@dataclass(frozen=True)
class SigningKey:
    """A private key on the curve P-256, P-384 or P-521, as a PEM file.

    ``certificate`` is a PEM file with the key's certificate, followed by those that lead to its authority. ``password`` is for
    a key that is encrypted.
    """

    key: Path
    certificate: Path | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _as_paths(self)


@dataclass(frozen=True)
class TrustedKey:
    """The publisher that bundles must come from: a public ``key``, or the ``certificate`` of an authority, as PEM files.

    Raises:
        UsageError: where both are given, or none.
    """

    key: Path | None = None
    certificate: Path | None = None

    def __post_init__(self) -> None:
        _as_paths(self)
        if (self.key is None) == (self.certificate is None):
            raise UsageError("a signature is checked with --key or with --certificate: give one of them")


def _as_paths(keys: SigningKey | TrustedKey) -> None:
    for name in ("key", "certificate"):
        value = getattr(keys, name)
        object.__setattr__(keys, name, None if value is None else Path(value))


@dataclass(frozen=True)
class Signature:
    """The state of a bundle's signature, and ``by``: the key or the certificate that it was checked with."""

    state: Literal["unsigned", "not checked", "valid"]
    by: str | None = None

    def __str__(self) -> str:
        words = {"unsigned": "unsigned", "not checked": "signed, not checked", "valid": f"valid, by {self.by}"}
        return words[self.state]


UNSIGNED = Signature("unsigned")


def trusted(
    key: Path | None = None, certificate: Path | None = None, *, require_signature: bool = False
) -> TrustedKey | None:
    """The publisher to check signatures against; None where neither key nor certificate is given.

    Raises:
        UsageError: where both are given, or none and a signature is required.
    """
    if key is None and certificate is None:
        refuse_unchecked(None, require_signature=require_signature)
        return None
    return TrustedKey(key, certificate)


def refuse_unchecked(publisher: TrustedKey | None, *, require_signature: bool) -> None:
    """Refuse to require a signature without anything to check it with: anybody can sign with some key.

    Raises:
        UsageError: in that case.
    """
    if require_signature and publisher is None:
        raise UsageError("--require-signature needs --key or --certificate: a signature shows nothing without them")


def look(directory: Path) -> Signature:
    """Whether the bundle at ``directory`` has a signature, which is not read."""
    return Signature("not checked") if os.path.lexists(directory / SIGNATURE) else UNSIGNED


def check(directory: Path, publisher: TrustedKey) -> Signature:
    """Check that ``publisher`` signed every file at ``directory``, none of which is loaded.

    Raises:
        SignatureError: where the signature is missing, of another publisher, or not of these files.
        KeyFileError: where the key or the certificate cannot be used.
        RuntimeMissingError: where the package model-signing is not installed.
    """
    _check_installed("checking a signature")
    from s2mlp_deploy.bundle import openssf

    return Signature("valid", openssf.check(directory, publisher))


def sign(directory: Path, key: SigningKey, name: str) -> None:
    """Sign every file at ``directory`` as the model called ``name``.

    Raises:
        KeyFileError: where the key or its certificate cannot be used.
        OutputError: where the bundle has a file of the signature's name.
        RuntimeMissingError: where the package model-signing is not installed.
    """
    check_key(key)
    from s2mlp_deploy.bundle import openssf

    openssf.sign(directory, key, name)


def check_key(key: SigningKey) -> None:
    """Refuse a key that cannot sign, before any work is done.

    Raises:
        KeyFileError, RuntimeMissingError: as :func:`sign`.
    """
    _check_installed("--sign")
    from s2mlp_deploy.bundle import openssf

    openssf.signer(key)


def _check_installed(what: str) -> None:
    try:
        from s2mlp_deploy.bundle import openssf  # noqa: F401
    except ImportError as error:
        raise RuntimeMissingError(f"{what} needs the package model-signing ({error}): {pip_install('sign')}") from error
