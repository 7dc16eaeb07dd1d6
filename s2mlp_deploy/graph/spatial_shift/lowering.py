"""The base class of lowerings, the feature map that they shift, and the steps that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.schema.shift import Group, Shift
from s2mlp_deploy.schema.size import Size

HEIGHT, WIDTH, CHANNELS = 1, 2, 3
"""Axes of a map (batch, height, width, channels)."""

END = np.iinfo(np.int64).max
"""The end of an axis, whatever its length, for Slice."""


@dataclass(frozen=True)
class FeatureMap:
    """The map that a lowering shifts: ``size`` is (height, width), None where both are dynamic.

    ``shape`` is the value holding [batch, height, width, channels] for reshaping tokens.
    """

    name: str
    channels: int
    size: Size | None
    shape: ir.Value


class Lowering(ABC):
    """One way of expressing the shift."""

    name: str

    @abstractmethod
    def refusal(self, shift: Shift, *, dynamic_size: bool) -> str | None:
        """Why this lowering would not be exact for ``shift``; None where it is."""

    @abstractmethod
    def emit(self, out: GraphBuilder, tokens: ir.Value, shift: Shift, fmap: FeatureMap, name: str) -> ir.Value:
        """Tokens (batch · height · width, channels) shifted; nodes are called ``name``/…"""


def split_channels(out: GraphBuilder, x: ir.Value, groups: tuple[Group, ...], axis: int, name: str) -> list[ir.Value]:
    if len(groups) == 1:
        return [x]
    widths = [g.stop - g.start for g in groups]
    sizes = out.integers("groups_" + "_".join(map(str, widths)), *widths)
    return out.ops("Split", [x, sizes], f"{name}/split", len(groups), axis=axis)


def to_tokens(out: GraphBuilder, x: ir.Value, fmap: FeatureMap, name: str) -> ir.Value:
    shape = out.integers(f"tokens{fmap.channels}", -1, fmap.channels)
    return out.op("Reshape", [x, shape], f"{name}/tokens")
