"""Format counts for messages: 1 image, 2 images."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``count`` things called ``noun``: 1 case, 2 cases, 1,200 classes."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"
