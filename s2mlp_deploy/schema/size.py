"""The size of an image or of a feature map."""

from __future__ import annotations

from typing import TypeAlias

Size: TypeAlias = tuple[int, int]
"""(height, width)."""


def format_size(size: Size) -> str:
    """``HxW``, as the command line takes it."""
    return f"{size[0]}x{size[1]}"
