"""Format counts and lists for messages: 1 image, 2 images; a, b, and 3 more."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, noun: str) -> str:
    """``count`` things called ``noun``: 1 case, 2 cases, 1,200 classes."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def some(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first ``most`` of ``names``, and how many more there are."""
    left = len(names) - most
    return separator.join([*names[:most], *([f"and {left:,} more"] if left > 0 else [])])


def shortened(text: str, most: int = 200) -> str:
    """Shorten ``text``, whose length an untrusted file decides."""
    return text if len(text) <= most else text[: most // 2] + " … " + text[-most // 2 :]
