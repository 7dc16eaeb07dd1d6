"""Formats by name, without loading any: an entry point in the group ``s2mlp_deploy.exporters`` makes one."""

from __future__ import annotations

from importlib.metadata import entry_points

GROUP = "s2mlp_deploy.exporters"

ONNX = "onnx"
"""The format that all others start from."""


def names() -> tuple[str, ...]:
    """The formats that installed packages offer, in alphabetical order."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))
