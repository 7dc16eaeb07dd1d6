"""Emit the ONNX graph of an S²-MLPv2 from its spec and weights, layer by layer, without tracing."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from s2mlp_deploy.families.s2mlp_v2.spec import PARTS, S2MLPv2Spec
from s2mlp_deploy.families.staged.emit import StagedEmitter
from s2mlp_deploy.graph.position_mean import emit_sum
from s2mlp_deploy.graph.spatial_shift import FeatureMap


@dataclass(frozen=True)
class S2MLPv2Emitter(StagedEmitter):
    """Writes blocks of three parts, which are shifted at once, and of split attention over them."""

    def mix(self, y: ir.Value, fmap: FeatureMap, layer: str, name: str) -> ir.Value:
        """Shift and split attention: tokens (batch · height · width, 3·c) to (batch · height · width, c)."""
        assert isinstance(self.spec, S2MLPv2Spec)
        parts = self._map_of_parts(fmap)
        moved = self.lowering.emit(self.out, y, self.spec.shift_of_all_parts, parts, f"{name}/shift")
        weights = self._weights(moved, parts, layer, name)
        x = self.out.op("Reshape", [moved, parts.shape], f"{name}/parts")
        x = self.out.op("Mul", [x, weights], f"{name}/weighted_parts")
        return self._sum_of_parts(x, fmap.channels, f"{name}/attention")

    def _weights(self, moved: ir.Value, parts: FeatureMap, layer: str, name: str) -> ir.Value:
        """The weights of all channels, (batch, 1, 1, 3·c): those of each channel's three parts add up to 1."""
        c = parts.channels // PARTS
        total = emit_sum(self.out, moved, parts, f"{name}/sum_of_positions")
        a = self._sum_of_parts(total, c, f"{name}/sum")
        a = self.gelu(self.linear(a, f"{layer}.attention1", f"{name}/attention1"), f"{name}/attention_gelu")
        a = self.linear(a, f"{layer}.attention2", f"{name}/attention2")
        a = self.out.op("Reshape", [a, self.out.integers(f"parts{c}", -1, PARTS, c)], f"{name}/by_part")
        a = self.out.op("Softmax", [a], f"{name}/softmax", axis=1)
        return self.out.op("Reshape", [a, self.out.integers(f"weights{c}", -1, 1, 1, PARTS * c)], f"{name}/weights")

    def _sum_of_parts(self, x: ir.Value, channels: int, name: str) -> ir.Value:
        """(…, 3·c) to (rows, c)."""
        x = self.out.op("Reshape", [x, self.out.integers(f"parts{channels}", -1, PARTS, channels)], f"{name}/parts")
        return self.out.op("ReduceSum", [x, self.out.integers("axis1", 1)], name, keepdims=0)

    def _map_of_parts(self, fmap: FeatureMap) -> FeatureMap:
        """The map of all parts side by side, of 3·c channels."""
        name, channels = f"{fmap.name}/parts", PARTS * fmap.channels
        if fmap.size:
            shape = self.out.integers(f"{name}/map_shape", -1, *fmap.size, channels)
        else:
            shape = self.out.find(f"{name}/map_shape") or self.out.op(
                "Mul", [fmap.shape, self.out.integers(f"as_many_channels{PARTS}", 1, 1, 1, PARTS)], f"{name}/map_shape"
            )
        return FeatureMap(name, channels, fmap.size, shape)
