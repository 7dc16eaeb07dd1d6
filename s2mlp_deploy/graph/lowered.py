"""A checkpoint lowered to an ONNX graph, with the facts about it that the graph does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Spec

if TYPE_CHECKING:  # takes a second to import, which a device that runs a model does not need
    import onnx_ir as ir

OPSET = 20
"""The first opset with Gelu as one operator; every runtime since early 2024 reads it."""

IR_VERSION = 9
"""The file format version that belongs to opset 20."""


NO_SHIFT = "none"
"""The lowering of a network without a shift, as manifests record it."""


@dataclass(frozen=True)
class Axes:
    """The input's axes that one file must serve: a number, or None for any."""

    batch: int | None = 1
    size: Size | None = None

    def shape(self, in_channels: int) -> tuple[int | str, int, int | str, int | str]:
        """The input's shape, with names for what is dynamic."""
        height, width = self.size or ("height", "width")
        return (self.batch or "batch", in_channels, height, width)


@dataclass(frozen=True)
class Lowered:
    """A checkpoint lowered to an ONNX graph: the input of every exporter."""

    model: ir.Model
    spec: Spec
    axes: Axes
    lowering: str
    precision: str
