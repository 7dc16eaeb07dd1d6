"""The layers that the graphs of families share, written from the weights.

Between the reshapes around convolutions and shifts, feature maps are tokens (batch · height · width, channels): a
linear layer is a 2-D Gemm on the checkpoint's own weight matrix (``transB``), which runtimes map to their fastest
kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.layer import INPUT, OUTPUT
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.schema.spec import Embedding, Spec


@dataclass(frozen=True)
class LayerEmitter:
    """Writes layers into a graph by the canonical names of their parameters, which ``weights`` holds."""

    out: GraphBuilder
    weights: Mapping[str, np.ndarray]
    norm_epsilon: float

    def initializer_name(self, parameter: str) -> str:
        """The name in the graph of a parameter."""
        return parameter

    def linear(self, x: ir.Value, layer: str, name: str) -> ir.Value:
        """Tokens (rows, inputs) to (rows, outputs)."""
        return self.out.op("Gemm", [x, *self._parameters(layer)], name, transB=1)

    def norm(self, x: ir.Value, layer: str, name: str) -> ir.Value:
        """LayerNorm over channels, the last axis."""
        return self.out.op(
            "LayerNormalization", [x, *self._parameters(layer)], name, axis=-1, epsilon=self.norm_epsilon
        )

    def gelu(self, x: ir.Value, name: str) -> ir.Value:
        """GELU with the error function."""
        return self.out.op("Gelu", [x], name)

    def convolution(self, x: ir.Value, embedding: Embedding, layer: str, name: str) -> ir.Value:
        """The convolution that opens a stage, from and to (batch, channels, height, width)."""
        return self.out.op(
            "Conv",
            [x, *self._parameters(layer)],
            name,
            kernel_shape=list(embedding.kernel),
            strides=list(embedding.stride),
            pads=[*embedding.padding, *embedding.padding],
        )

    def parameter(self, name: str) -> ir.Value | None:
        """The initializer of a parameter; None where the layer has none."""
        if name not in self.weights:
            return None
        return self.out.constant(self.initializer_name(name), np.asarray(self.weights[name], np.float32))

    def _parameters(self, layer: str) -> list[ir.Value | None]:
        weight, bias = (self.parameter(f"{layer}.{kind}") for kind in ("weight", "bias"))
        return [weight, bias] if bias else [weight]


def image_input(spec: Spec, axes: Axes) -> ir.Value:
    """The graph's input (batch, channels, height, width) float32."""
    return ir.Value(name=INPUT, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(axes.shape(spec.in_channels)))


def finish(out: GraphBuilder, images: ir.Value, logits: ir.Value, spec: Spec, axes: Axes, name: str) -> ir.Model:
    """The model of what ``out`` collected between ``images`` and ``logits`` (batch, classes)."""
    assert logits.name == OUTPUT
    logits.type, logits.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([axes.batch or "batch", spec.classes])
    return out.model([images], [logits], name)
