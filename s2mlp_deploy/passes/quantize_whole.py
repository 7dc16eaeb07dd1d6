"""Quantize a whole graph to int8, for processors that compute with integers alone.

Every value that is computed is quantized where it is made and restored where it is read, and so are the constants, so that
each operator reads and writes int8. Operators that only move values move bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PreconditionError

from s2mlp_deploy.graph.builder import add_initializer, array_of, remove_unused_initializers
from s2mlp_deploy.passes import verify_whole
from s2mlp_deploy.passes.moves import MOVES, is_data
from s2mlp_deploy.passes.precision_pass import PrecisionPass
from s2mlp_deploy.passes.quantize import Parameters, activation_parameters, quantize_bias, quantize_weight
from s2mlp_deploy.passes.recipe import Range, Recipe
from s2mlp_deploy.passes.spell_out import SATURATED
from s2mlp_deploy.passes.verify_rewrite import PRODUCT

PRODUCTS = ("Conv", "Gemm")
"""The operators whose second input are weights with a scale for each row, and whose third is an int32 bias."""

UNIT = Range(0.0, 255 / 256)
"""The range that integer kernels of sigmoid and softmax write, whatever occurs."""


class QuantizeWhole(PrecisionPass):
    """A copy of a graph in which every value is int8, by the calibrated ``ranges`` of :func:`computed_values`.

    Requires: a float32 graph with one input and one output, whose products have constant weights (out, …).
    Ensures: each value is quantized for its range, and each constant is the nearest to the float32 one.
    """

    def __init__(self, ranges: Mapping[str, Range], recipe: Recipe) -> None:
        self.ranges, self.recipe = ranges, recipe

    def requires(self, model: ir.Model) -> None:
        """Each value that is computed has a range, and weights are constants."""
        super().requires(model)
        if missing := [name for name in computed_values(model) if name not in self.ranges]:
            raise PreconditionError(f"{missing[0]} has no calibrated range")
        for node in model.graph:
            if node.op_type in PRODUCTS and array_of(node.inputs[1]) is None:
                raise PreconditionError(f"{node.name} is no layer with a constant weight")

    def rewrite(self, graph: ir.Graph) -> None:
        _Whole(graph, self.ranges, self.recipe).rewrite()
        remove_unused_initializers(graph)

    def differences(self, made: ir.Model, original: ir.Model) -> Iterator[str]:
        return verify_whole.differences(made.graph, original.graph, self.range_of, self.recipe)

    def range_of(self, node: ir.Node | None, name: str) -> Range:
        """The range that the value ``name``, made by ``node``, is quantized for."""
        return range_of(node, name, self.ranges)


def computed_values(model: ir.Model) -> tuple[str, ...]:
    """The names of the values that a whole quantization takes ranges for: the input, and each that is not only moved."""
    made = [str(node.outputs[0].name) for node in model.graph if node.op_type not in MOVES]
    return (str(model.graph.inputs[0].name), *made)


def range_of(node: ir.Node | None, name: str, ranges: Mapping[str, Range]) -> Range:
    """The range that the value ``name``, made by ``node``, is quantized for: what occurs, as far as it matters."""
    if node is not None and node.op_type in ("Sigmoid", "Softmax"):
        return UNIT
    occurring = ranges[name]
    limit = next((limit for end, limit in SATURATED.items() if name.endswith(end)), occurring)
    return Range(max(occurring.low, limit.low), min(occurring.high, limit.high))


class _Whole:
    """Goes through ``graph`` once, in order."""

    def __init__(self, graph: ir.Graph, ranges: Mapping[str, Range], recipe: Recipe) -> None:
        self.graph, self.ranges, self.recipe = graph, ranges, recipe
        self._bytes: dict[ir.Value, tuple[ir.Value, Parameters]] = {}
        self._restored: dict[ir.Value, ir.Value] = {}

    def rewrite(self) -> None:
        nodes, source = list(self.graph), self.graph.inputs[0]
        self._quantize(source, None, nodes[0])
        for node in nodes:
            if node.op_type in MOVES:
                self._move(node)
            else:
                self._compute(node)
        self._finish()

    def _compute(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value in self._bytes:
                node.replace_input_with(index, self._restore(value, node))
        if node.op_type in PRODUCTS:
            _, parameters = self._bytes[_data(node)]
            scales = quantize_weight(self.graph, node, float(parameters.scale), self.recipe)
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                quantize_bias(self.graph, node, scales * parameters.scale)
        else:
            self._quantize_constants(node)
        self._quantize(node.outputs[0], node, node)

    def _quantize(self, value: ir.Value, producer: ir.Node | None, place: ir.Node) -> None:
        """value → Q; behind the node ``place`` that makes it, or, without ``producer``, before that."""
        name = str(value.name)
        parameters = activation_parameters(range_of(producer, name, self.ranges), self.recipe)
        s = add_initializer(self.graph, f"{name}/scale", parameters.scale)
        z = add_initializer(self.graph, f"{name}/zero_point", parameters.zero_point)
        quantized = ir.Value(name=f"{name}/q", type=ir.TensorType(ir.DataType.INT8), shape=value.shape)
        node = ir.node("QuantizeLinear", [value, s, z], outputs=[quantized], name=f"{name}/quantize")
        if producer is None:
            self.graph.insert_before(place, node)
        else:
            self.graph.insert_after(place, node)
        self._bytes[value] = quantized, parameters

    def _restore(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        quantized, _ = self._bytes[value]
        if value not in self._restored:
            self._restored[value] = self._dequantized(quantized, value, f"{value.name}/restored", reader)
            self._bytes[self._restored[value]] = self._bytes[value]
        return self._restored[value]

    def _dequantized(self, quantized: ir.Value, value: ir.Value, name: str, before: ir.Node | None) -> ir.Value:
        """``quantized`` as floats called ``name``; at the end of the graph without a node ``before``."""
        _, parameters = self._bytes[value]
        inputs: Sequence[ir.Value] = [
            quantized,
            add_initializer(self.graph, f"{name}/scale", parameters.scale),
            add_initializer(self.graph, f"{name}/zero_point", parameters.zero_point),
        ]
        restored = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
        node = ir.node("DequantizeLinear", inputs, outputs=[restored], name=f"{name}/dequantize")
        if before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(before, node)
        return restored

    def _move(self, node: ir.Node) -> None:
        """Let ``node`` move the bytes of what it moved."""
        moved = [(i, value) for i, value in enumerate(node.inputs) if value in self._bytes and is_data(node, i)]
        parameters = self._bytes[moved[0][1]][1]
        for index, value in moved:
            quantized, own = self._bytes[value]
            if own != parameters:
                raise PreconditionError(f"{node.name} joins values of several ranges")
            node.replace_input_with(index, quantized)
        if node.op_type == "Pad" and node.attributes.get_string("mode", "constant") == "constant":
            node.resize_inputs(max(3, len(node.inputs)))
            node.replace_input_with(2, add_initializer(self.graph, f"{node.name}/zero", parameters.zero_point))
        for output in node.outputs:
            output.type = ir.TensorType(ir.DataType.INT8)
            self._bytes[output] = output, parameters

    def _quantize_constants(self, node: ir.Node) -> None:
        """Constant numbers of an element-wise operator as int8 of one scale, without a zero point."""
        for index, value in enumerate(node.inputs):
            array = array_of(value)
            if array is None or array.dtype != np.float32 or (node.op_type == "Pow" and index == 1):
                continue
            scale = np.float32(np.abs(array).max() / 127 or 1)
            name = f"{node.name}/constant{index}"
            inputs = [
                add_initializer(self.graph, f"{name}_q", np.rint(array / scale).astype(np.int8)),
                add_initializer(self.graph, f"{name}_scale", np.array(scale)),
            ]
            restored = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(array.shape))
            dequantize = ir.node("DequantizeLinear", inputs, outputs=[restored], name=f"{name}/dequantize")
            self.graph.insert_before(node, dequantize)
            node.replace_input_with(index, restored)

    def _finish(self) -> None:
        """Restore the output, which keeps its name."""
        (output,) = self.graph.outputs
        name = str(output.name)
        quantized, _ = self._bytes[output]
        output.name = f"{name}{PRODUCT}"
        self.graph.outputs[0] = self._dequantized(quantized, output, name, None)


def _data(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value
