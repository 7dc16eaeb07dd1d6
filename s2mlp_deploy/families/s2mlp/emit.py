"""Emit the ONNX graph of an S²-MLP from its spec and weights, layer by layer, without tracing."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from s2mlp_deploy.families.staged.emit import StagedEmitter
from s2mlp_deploy.graph.spatial_shift import FeatureMap


@dataclass(frozen=True)
class S2MLPEmitter(StagedEmitter):
    """Writes the blocks of the paper's equation 5."""

    def mix(self, y: ir.Value, fmap: FeatureMap, layer: str, name: str) -> ir.Value:
        """shift(GELU(y)) of tokens (batch · height · width, c)."""
        return self.lowering.emit(self.out, self.gelu(y, f"{name}/gelu1"), self.spec.shift, fmap, f"{name}/shift")
