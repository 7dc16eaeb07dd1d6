"""Options that hold several values with commas between, for the commands of s2mlp-bench."""

from __future__ import annotations

import re
from fractions import Fraction

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.spec import Size


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Positive numbers, each once, in the order given.

    Raises:
        UsageError: where ``text`` is something else.
    """
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 100_000 for part in parts):
        raise UsageError(f"{option} {text!r}: expected positive numbers with commas between, as in 1,2")
    return tuple(dict.fromkeys(map(int, parts)))


def sizes(option: str, text: str) -> tuple[Size, ...]:
    """Image sizes, each once, in the order given.

    Raises:
        UsageError: where ``text`` is something else.
    """
    return tuple(dict.fromkeys(_size(option, part) for part in text.split(",")))


def _size(option: str, text: str) -> Size:
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    if not match or not int(match[1]) or not int(match[2] or 1):
        raise UsageError(f"{option} {text!r}: expected N or HxW, with commas between, as in 224,192x256")
    return int(match[1]), int(match[2] or match[1])


def shares(option: str, text: str) -> tuple[Fraction, ...]:
    """Shares of a whole, each once, in the order given.

    Raises:
        UsageError: where ``text`` is something else.
    """
    return tuple(dict.fromkeys(_share(option, part) for part in text.split(",")))


def _share(option: str, text: str) -> Fraction:
    match = re.fullmatch(r"([0-9]{1,3})(?:/([0-9]{1,3}))?", text)
    if match and int(match[2] or 1) and 0 < (share := Fraction(int(match[1]), int(match[2] or 1))) <= 1:
        return share
    raise UsageError(f"{option} {text!r}: expected shares of the whole with commas between, as in 1/4,1/2,1")
