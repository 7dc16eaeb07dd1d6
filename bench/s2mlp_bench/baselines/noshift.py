"""The lowering that leaves the shift out: no other can be faster."""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.spatial_shift import FeatureMap, Lowering
from s2mlp_deploy.schema.shift import Shift


class NoShift(Lowering):
    """Leaves the shift out: wrong, and the fastest that any lowering could be."""

    name = "none"

    def refusal(self, shift: Shift, *, dynamic_size: bool) -> str | None:
        return "it computes another network; it is a bound to measure against"

    def emit(self, out: GraphBuilder, tokens: ir.Value, shift: Shift, fmap: FeatureMap, name: str) -> ir.Value:
        return tokens
