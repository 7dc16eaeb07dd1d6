"""This project's metadata in ONNX files: texts, under keys that begin with ``s2mlp.``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

PREFIX = "s2mlp."


def metadata_of(model: ir.Model) -> dict[str, str]:
    """This project's entries among the metadata of ``model``, sorted by key."""
    return {key: text for key, text in sorted(model.metadata_props.items()) if key.startswith(PREFIX)}
