"""Emit the ONNX graph of an MLP-Mixer from its spec and weights.

Tokens are ordered by position first, (M · batch, c), which is (M, batch · c) in the same memory: token mixing is two 2-D
Gemms for any batch on the checkpoint's own weights, as channel mixing is. The first reads its input transposed; the
result of the second is transposed back, in 1% of a block's time. With weights as second factors, int8 has one scale an
output there, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.families.emission import LayerEmitter, finish, image_input
from s2mlp_deploy.families.mixer.spec import EMBEDDING, HEAD_MEAN, HEAD_NORM, MixerSpec, block_name
from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.layer import OUTPUT
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.position_mean import emit_mean
from s2mlp_deploy.graph.spatial_shift import FeatureMap


def emit(spec: MixerSpec, weights: Mapping[str, np.ndarray], axes: Axes) -> ir.Model:
    """The graph of ``spec`` with ``weights`` (canonical names; shared, not copied, where float32).

    Input ``input`` (batch, channels, height, width) float32, output ``logits`` (batch, classes).

    Raises:
        UsageError: where ``axes`` has another image size, or leaves it open.
    """
    if axes.size != spec.image_size:
        raise UsageError("an MLP-Mixer cannot serve every image size: its token-mixing weights are for one")
    emitter = _MixerEmitter(GraphBuilder(), weights, spec.norm_epsilon, spec)
    images = image_input(spec, axes)
    x = emitter.embedding(images)
    for b in range(spec.depth):
        x = emitter.block(x, f"block{b}", block_name(b))
    return finish(emitter.out, images, emitter.head(x), spec, axes, "mlp_mixer")


@dataclass(frozen=True)
class _MixerEmitter(LayerEmitter):
    spec: MixerSpec

    def embedding(self, images: ir.Value) -> ir.Value:
        """Images to tokens (positions · batch, channels)."""
        x = self.convolution(images, self.spec.embedding, EMBEDDING, f"{EMBEDDING}/conv")
        x = self.out.op("Transpose", [x], f"{EMBEDDING}/positions_first", perm=[2, 3, 0, 1])
        return self.out.op("Reshape", [x, self._tokens], EMBEDDING)

    def block(self, x: ir.Value, layer: str, name: str) -> ir.Value:
        """Tokens to tokens (paper, equation 1)."""
        y = self.norm(x, f"{layer}.norm1", f"{name}/norm1")
        y = self.out.op("Reshape", [y, self.out.integers("rows", self.spec.positions, -1)], f"{name}/rows")
        y = self.out.op("Gemm", [y, *self._parameters(f"{layer}.token1")], f"{name}/token1", transA=1, transB=1)
        y = self.linear(self.gelu(y, f"{name}/gelu1"), f"{layer}.token2", f"{name}/token2")
        y = self.out.op("Transpose", [y], f"{name}/positions_first", perm=[1, 0])
        y = self.out.op("Reshape", [y, self._tokens], f"{name}/tokens")
        x = self.out.op("Add", [x, y], f"{name}/add1")
        y = self.norm(x, f"{layer}.norm2", f"{name}/norm2")
        y = self.gelu(self.linear(y, f"{layer}.fc3", f"{name}/fc3"), f"{name}/gelu2")
        return self.out.op("Add", [x, self.linear(y, f"{layer}.fc4", f"{name}/fc4")], name)

    def head(self, x: ir.Value) -> ir.Value:
        """Tokens to logits (batch, classes): mean over positions, then linear."""
        if not self.spec.norm_after_mean:
            x = self.norm(x, "head.norm", HEAD_NORM)
        x = emit_mean(self.out, *self._batch_first(x), HEAD_MEAN)
        if self.spec.norm_after_mean:
            x = self.norm(x, "head.norm", HEAD_NORM)
        return self.linear(x, "head.fc", OUTPUT)

    def _batch_first(self, x: ir.Value) -> tuple[ir.Value, FeatureMap]:
        """Tokens (batch · positions, channels), and their map."""
        (size,), c = self.spec.map_sizes(self.spec.image_size), self.spec.channels
        x = self.out.op("Reshape", [x, self.out.integers("positions", self.spec.positions, -1, c)], "head/positions")
        x = self.out.op("Transpose", [x], "head/batch_first", perm=[1, 0, 2])
        x = self.out.op("Reshape", [x, self._tokens], "head/tokens")
        return x, FeatureMap("head", c, size, self.out.constant("head/map_shape", np.array([-1, *size, c])))

    @property
    def _tokens(self) -> ir.Value:
        return self.out.integers("tokens", -1, self.spec.channels)
