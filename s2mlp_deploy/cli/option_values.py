"""Parse option values that are not plain words: sizes, numbers and lists with commas between."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from s2mlp_deploy.bundle.signature import SigningKey
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.schema.shift import Offset, parse_directions
from s2mlp_deploy.schema.size import Size


def size(option: str, text: str | None) -> Size | None:
    """An image size, N or HxW; None where it was not given.

    Raises:
        UsageError: where ``text`` is something else.
    """
    return None if text is None else _size(option, text)


def _size(option: str, text: str) -> Size:
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    if not match or not int(match[1]) or not int(match[2] or 1):
        raise UsageError(f"{option} {text!r} is not a size: expected N or HxW, as in 224 or 192x256")
    return int(match[1]), int(match[2] or match[1])


def sizes(option: str, text: str) -> tuple[Size, ...]:
    """Image sizes with commas between, each once, in the order given.

    Raises:
        UsageError: as :func:`size`.
    """
    return tuple(dict.fromkeys(_size(option, part) for part in text.split(",")))


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Positive numbers with commas between, each once, in the order given.

    Raises:
        UsageError: where ``text`` is something else.
    """
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 100_000 for part in parts):
        raise UsageError(f"{option} {text!r}: expected positive numbers with commas between, as in 1,2")
    return tuple(dict.fromkeys(map(int, parts)))


def batch(text: str) -> int | None:
    """A batch size; None for ``dynamic``.

    Raises:
        UsageError: where ``text`` is something else.
    """
    if text == "dynamic":
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 100_000:
        raise UsageError(f"--batch {text!r}: expected a positive number, or dynamic")
    return int(text)


def floats(option: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers of sensible size with commas between; None where they were not given.

    Raises:
        UsageError: where ``text`` is something else.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} {text!r} is not a list of numbers: expected M,M,M as in 0.485,0.456,0.406"
        ) from error
    if not all(abs(v) < 1e6 for v in values):
        raise UsageError(f"{option} {text!r} holds a value that is not a sensible number")
    return values


def directions(text: str | None) -> tuple[Offset, ...] | None:
    """The offset of each channel group, as --shift-directions takes them; None where it was not given.

    Raises:
        UsageError: where ``text`` is something else.
    """
    try:
        return None if text is None else parse_directions(text)
    except ValueError as error:
        raise UsageError(f"--shift-directions: {error}") from error


def signing_key(key: Path | None, certificate: Path | None) -> SigningKey | None:
    """The key of ``--sign``, with the password that the environment holds; None where nothing is to be signed.

    Raises:
        UsageError: for a certificate without its key.
    """
    if key is None:
        if certificate is not None:
            raise UsageError("--sign-certificate is for --sign, the certificate's private key: give both")
        return None
    return SigningKey(key, certificate, os.environ.get("S2MLP_SIGN_PASSWORD"))


_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def seconds(option: str, text: str) -> float:
    """A length of time with its unit, in seconds.

    Raises:
        UsageError: where ``text`` is something else.
    """
    return _quantity(option, text, _SECONDS, "a time, as in 20ms, 90s or 10min")


def size_bytes(option: str, text: str | None) -> int | None:
    """A size with its unit, in bytes; None where it was not given.

    Raises:
        UsageError: where ``text`` is something else.
    """
    return None if text is None else round(_quantity(option, text, _BYTES, "a size, as in 500KB, 30MB or 1.5GB"))


def _quantity(option: str, text: str, units: Mapping[str, float], expected: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)", text)
    unit = next((value for name, value in units.items() if match and name.lower() == match[2].lower()), None)
    if match is None or unit is None or not float(match[1]):
        raise UsageError(f"{option} {text!r}: expected {expected}")
    return float(match[1]) * unit


def names(text: str | None) -> tuple[str, ...] | None:
    """Names with commas between, each once, in the order given; None where there are none."""
    return None if text is None else tuple(dict.fromkeys(text.split(",")))
