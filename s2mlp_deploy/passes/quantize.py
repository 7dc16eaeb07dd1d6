"""Quantize layers to int8: put quantize/dequantize pairs into an emitted graph.

Every layer is known by name, so nothing is matched or guessed. A quantized layer's input is
quantized where its float values end (behind the LayerNorm or the GELU), so that the shift, which
only moves values, moves bytes. The :class:`~s2mlp_deploy.passes.recipe.Recipe` of the target decides on the types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PreconditionError

from s2mlp_deploy.graph.builder import add_initializer, array_of, constant_of, remove_unused_initializers
from s2mlp_deploy.graph.layer import INPUT, Layer
from s2mlp_deploy.passes import verify_rewrite
from s2mlp_deploy.passes.moves import is_data, only_moves
from s2mlp_deploy.passes.precision_pass import PrecisionPass
from s2mlp_deploy.passes.recipe import LARGEST_BIAS, Range, Recipe
from s2mlp_deploy.schema.array import Array


class Quantize(PrecisionPass):
    """A copy of a graph with ``layers`` in int8; all others stay as they are.

    ``ranges`` holds the calibrated range of every layer's activation, and of its output where the recipe quantizes that, by
    the name of the value.

    Requires: a float32 graph with one input and one output, in which each layer is a node of that name with a constant
    weight.
    Ensures: every activation and such output is quantized for its range, and each weight and bias is the nearest to the
    float32 one.
    """

    def __init__(self, ranges: Mapping[str, Range], recipe: Recipe, layers: Collection[Layer]) -> None:
        self.ranges, self.recipe, self.layers = ranges, recipe, layers

    def requires(self, model: ir.Model) -> None:
        """The layers are there, and their weights are constants."""
        super().requires(model)
        nodes = {str(node.name): node for node in model.graph}
        for layer in self.layers:
            if layer.name not in nodes or array_of(nodes[layer.name].inputs[1]) is None:
                raise PreconditionError(f"{layer.name} is no layer with a constant weight")
            if layer.activation not in self.ranges:
                raise PreconditionError(f"{layer.activation}, which {layer.name} reads, has no calibrated range")
            if self.recipe.outputs and layer.name not in self.ranges:
                raise PreconditionError(f"the output of {layer.name} has no calibrated range")

    def rewrite(self, graph: ir.Graph) -> None:
        nodes = {str(node.name): node for node in graph}
        for layer in self.layers:
            activation = graph.inputs[0] if layer.activation == INPUT else nodes[layer.activation].outputs[0]
            self._quantize(graph, nodes[layer.name], activation, self.ranges[layer.activation])
        for layer in self.layers if self.recipe.outputs else ():
            parameters = activation_parameters(self.ranges[layer.name], self.recipe)
            _quantize_output(graph, nodes[layer.name], parameters)
        remove_unused_initializers(graph)

    def differences(self, made: ir.Model, original: ir.Model) -> Iterator[str]:
        return verify_rewrite.quantization_differences(
            made.graph, original.graph, self.ranges, self.recipe, self.layers
        )

    def _quantize(self, graph: ir.Graph, node: ir.Node, activation: ir.Value, span: Range) -> None:
        parameters = activation_parameters(span, self.recipe)
        moved = node.inputs[0]
        assert moved is not None
        # Operators that only move values move bytes. A convolution cannot in ONNX, and padding would have to write the
        # zero point: behind those the shift stays in float.
        source = activation if only_moves(activation, moved) else moved
        _quantize_input(graph, node, source, parameters)
        scales = quantize_weight(graph, node, float(parameters.scale), self.recipe)
        if self.recipe.int32_bias and len(node.inputs) > 2 and node.inputs[2] is not None:
            quantize_bias(graph, node, scales * parameters.scale)


@dataclass(frozen=True)
class Parameters:
    """Scale (float32) and zero point of an activation, a number each."""

    scale: Array
    zero_point: Array


def activation_parameters(r: Range, recipe: Recipe) -> Parameters:
    """The parameters for the range ``r``, with which zero is represented exactly."""
    low, high = min(r.low, 0.0), max(r.high, 0.0)
    q_low, q_high = recipe.limits
    if recipe.symmetric:
        return Parameters(recipe.scale(max(-low, high) / q_high), np.array(0, recipe.activation))
    scale = np.float32((high - low) / (q_high - q_low))
    zero_point = np.clip(np.rint(q_low - low / scale), q_low, q_high)
    return Parameters(np.array(scale), np.array(zero_point, recipe.activation))


def _quantize_input(graph: ir.Graph, node: ir.Node, source: ir.Value, parameters: Parameters) -> None:
    """source → Q → (whatever moved it to ``node``) → DQ → node."""
    name = node.name
    s = add_initializer(graph, f"{name}/x_scale", parameters.scale)
    z = add_initializer(graph, f"{name}/x_zero_point", parameters.zero_point)
    uses = list(source.uses())
    quantized = ir.Value(name=f"{name}/x_q", type=ir.TensorType(z.dtype), shape=source.shape)  # type: ignore[arg-type]
    q = ir.node("QuantizeLinear", [source, s, z], outputs=[quantized], name=f"{name}/quantize")
    for user, index in uses:
        user.replace_input_with(index, quantized)
    producer = source.producer()
    if producer is None:
        graph.insert_before(graph.node(0), q)
    else:
        graph.insert_after(producer, q)
    moved = node.inputs[0]
    assert moved is not None and z.dtype is not None
    _retype(quantized, node, z.dtype)
    restored = ir.Value(name=f"{name}/x", type=ir.TensorType(ir.DataType.FLOAT), shape=moved.shape)
    graph.insert_before(node, ir.node("DequantizeLinear", [moved, s, z], outputs=[restored], name=f"{name}/dequantize"))
    node.replace_input_with(0, restored)


def _quantize_output(graph: ir.Graph, node: ir.Node, parameters: Parameters) -> None:
    """node → Q → DQ → whatever read the node's output, whose name the restored values take."""
    name, product = str(node.name), node.outputs[0]
    s = add_initializer(graph, f"{name}/y_scale", parameters.scale)
    z = add_initializer(graph, f"{name}/y_zero_point", parameters.zero_point)
    restored = ir.Value(name=product.name, type=product.type, shape=product.shape)
    product.name = f"{product.name}{verify_rewrite.PRODUCT}"
    quantized = ir.Value(name=f"{name}/y_q", type=ir.TensorType(z.dtype), shape=product.shape)  # type: ignore[arg-type]
    product.replace_all_uses_with(restored, replace_graph_outputs=True)
    q = ir.node("QuantizeLinear", [product, s, z], outputs=[quantized], name=f"{name}/quantize_output")
    dq = ir.node("DequantizeLinear", [quantized, s, z], outputs=[restored], name=f"{name}/dequantize_output")
    graph.insert_after(node, [q, dq])


def _retype(value: ir.Value, end: ir.Node, dtype: ir.DataType) -> None:
    """Retype the values between the quantization and ``end`` as bytes."""
    for node, index in value.uses():
        if node is not end and is_data(node, index):
            for output in node.outputs:
                output.type = ir.TensorType(dtype)
                _retype(output, end, dtype)


def quantize_weight(graph: ir.Graph, node: ir.Node, x_scale: float, recipe: Recipe) -> Array:
    """int8 weights per output channel (axis 0, as PyTorch stores them); returns their scales (channels)."""
    values = constant_of(node.inputs[1])
    largest = np.abs(values).reshape(len(values), -1).max(1)
    scales = largest / 127
    if recipe.int32_bias and len(node.inputs) > 2:
        # A bias far larger than its channel's weights must still fit, and the weights' own sum on top of it.
        scales = np.maximum(scales, np.abs(constant_of(node.inputs[2])) / (x_scale * LARGEST_BIAS))
    scales = recipe.scale(np.where(scales > 0, scales, 1))
    rounded = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1)))
    _dequantize(graph, node, 1, f"{node.name}/weight", (np.clip(rounded, -127, 127).astype(np.int8), scales))
    return scales


def quantize_bias(graph: ir.Graph, node: ir.Node, scales: Array) -> None:
    rounded = np.rint(constant_of(node.inputs[2]).astype(np.float64) / scales.astype(np.float64))
    _dequantize(graph, node, 2, f"{node.name}/bias", (rounded.astype(np.int32), scales))


def _dequantize(graph: ir.Graph, node: ir.Node, index: int, name: str, constant: tuple[Array, Array]) -> None:
    """Let input ``index`` of ``node`` be DequantizeLinear of constant integers, with a scale per entry of axis 0."""
    quantized, scales = constant
    inputs = [
        add_initializer(graph, f"{name}_q", quantized),
        add_initializer(graph, f"{name}_scale", scales.astype(np.float32)),
    ]
    if quantized.dtype == np.int8:  # ONNX Runtime fuses nothing to QGemm where a weight has none
        inputs.append(add_initializer(graph, f"{name}_zero_point", np.zeros(len(scales), np.int8)))
    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(quantized.shape))
    graph.insert_before(
        node, ir.node("DequantizeLinear", inputs, {"axis": 0}, outputs=[value], name=f"{name}/dequantize")
    )
    node.replace_input_with(index, value)
