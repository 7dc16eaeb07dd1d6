"""Emit the ONNX graph of a network of stages from its spec and weights, layer by layer, without tracing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.families.emission import LayerEmitter, finish, image_input
from s2mlp_deploy.families.staged import layers
from s2mlp_deploy.families.staged.spec import StagedSpec
from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.layer import OUTPUT
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.position_mean import emit_mean
from s2mlp_deploy.graph.spatial_shift import FeatureMap, Lowering
from s2mlp_deploy.schema.size import Size


@dataclass(frozen=True)
class StagedEmitter(LayerEmitter):
    """Writes stages and head; the family adds the step of a block that moves values."""

    spec: StagedSpec
    lowering: Lowering

    @abstractmethod
    def mix(self, y: ir.Value, fmap: FeatureMap, layer: str, name: str) -> ir.Value:
        """Tokens between FC₁ and FC₂ of the block whose parameters are called ``layer`` and its nodes ``name``."""

    @classmethod
    def emit(cls, spec: StagedSpec, weights: Mapping[str, np.ndarray], lowering: Lowering, axes: Axes) -> ir.Model:
        """The graph of ``spec`` with ``weights`` (canonical names; shared, not copied, where float32).

        Input ``input`` (batch, channels, height, width) float32, output ``logits`` (batch, classes).
        """
        emitter = cls(GraphBuilder(), weights, spec.norm_epsilon, spec, lowering)
        images = x = image_input(spec, axes)
        sizes = spec.map_sizes(axes.size) if axes.size else None
        for s in range(len(spec.stages)):
            x, fmap = emitter.stage(x, s, sizes[s] if sizes else None)
        return finish(emitter.out, images, emitter.head(x, fmap), spec, axes, spec.family)

    def initializer_name(self, parameter: str) -> str:
        return layers.initializer_name(parameter)

    def stage(self, x: ir.Value, s: int, size: Size | None) -> tuple[ir.Value, FeatureMap]:
        """Stage ``s`` from images, or the tokens of the stage before it, to its tokens, which are a map of ``size``."""
        x, fmap = self.embedding(x, s, size)
        for b in range(self.spec.stages[s].depth):
            x = self.block(x, fmap, f"stages.{s}.blocks.{b}", layers.block_name(s, b))
        if s + 1 < len(self.spec.stages):
            x = self.out.op("Reshape", [x, fmap.shape], f"{fmap.name}/map")
            x = self.out.op("Transpose", [x], layers.map_name(s), perm=[0, 3, 1, 2])
        return x, fmap

    def embedding(self, x: ir.Value, s: int, size: Size | None) -> tuple[ir.Value, FeatureMap]:
        """Stage ``s`` from (batch, channels, height, width) to its first tokens."""
        stage = self.spec.stages[s]
        stage_name, name, c = layers.stage_name(s), layers.embedding_name(s), stage.channels
        x = self.convolution(x, stage.embedding, f"stages.{s}.embedding", f"{name}/conv")
        x = self.out.op("Transpose", [x], f"{name}/nhwc", perm=[0, 2, 3, 1])
        if size:
            shape = self.out.constant(f"{stage_name}/map_shape", np.array([-1, *size, c]))
        else:
            shape = self.out.op("Shape", [x], f"{stage_name}/map_shape")
        tokens = f"{name}/tokens" if stage.stem_norm else name
        x = self.out.op("Reshape", [x, self.out.constant(f"tokens{c}", np.array([-1, c]))], tokens)
        if stage.stem_norm:
            x = self.norm(x, f"stages.{s}.stem_norm", name)
        return x, FeatureMap(stage_name, c, size, shape)

    def block(self, x: ir.Value, fmap: FeatureMap, layer: str, name: str) -> ir.Value:
        """Tokens to tokens: as the module's Block computes them."""
        y = self.norm(x, f"{layer}.norm1", f"{name}/norm1")
        y = self.mix(self.linear(y, f"{layer}.fc1", f"{name}/fc1"), fmap, layer, name)
        x = self.out.op("Add", [x, self.linear(y, f"{layer}.fc2", f"{name}/fc2")], f"{name}/add1")
        y = self.norm(x, f"{layer}.norm2", f"{name}/norm2")
        y = self.gelu(self.linear(y, f"{layer}.fc3", f"{name}/fc3"), f"{name}/gelu2")
        return self.out.op("Add", [x, self.linear(y, f"{layer}.fc4", f"{name}/fc4")], name)

    def head(self, x: ir.Value, fmap: FeatureMap) -> ir.Value:
        """Tokens to logits (batch, classes): mean over positions, then linear."""
        if self.spec.final_norm and not self.spec.norm_after_mean:
            x = self.norm(x, "head.norm", layers.HEAD_NORM)
        x = emit_mean(self.out, x, fmap, layers.HEAD_MEAN)
        if self.spec.norm_after_mean:
            x = self.norm(x, "head.norm", layers.HEAD_NORM)
        return self.linear(x, "head.fc", OUTPUT)
