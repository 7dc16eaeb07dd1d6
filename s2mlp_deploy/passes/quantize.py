"""int8: quantize/dequantize pairs written into the graph that this project emitted.

Every layer is known by name, so nothing is matched or guessed. A quantized layer's input is
quantized where its float values end (behind the LayerNorm or the GELU), so that the shift, which
only moves values, moves bytes. One int8 graph does not fit all targets; a :class:`Recipe` says what
each of them runs fastest, and what its compiler accepts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.layer import INPUT, Layer
from s2mlp_deploy.schema.array import Array

LARGEST_BIAS = 2**30
"""Of 32 bits, a bias takes no more than this; integer kernels add up products in the rest, without a check."""


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value that an activation is quantized for."""

    low: float
    high: float


@dataclass(frozen=True)
class Recipe:
    """How a target wants its int8 graph.

    ``activation`` is the type of quantized activations; ``symmetric`` puts their zero point at 0.
    ``int32_bias`` quantizes biases with the product of both scales, as integer kernels add them.
    """

    activation: type[np.uint8] | type[np.int8]
    symmetric: bool
    int32_bias: bool

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and largest quantized activation; symmetric ones leave out −128."""
        info = np.iinfo(self.activation)
        return (-int(info.max) if self.symmetric else int(info.min)), int(info.max)


RECIPES: dict[str, Recipe] = {
    # ONNX Runtime fuses this into QGemm, whose u8×s8 kernel is what VNNI computes; symmetric int8
    # activations take twice the time there.
    "x86": Recipe(np.uint8, symmetric=False, int32_bias=True),
    # ARM's dot-product instructions multiply s8×s8.
    "arm": Recipe(np.int8, symmetric=False, int32_bias=True),
    # TensorRT's parser accepts neither uint8 activations nor a quantized bias.
    "trt": Recipe(np.int8, symmetric=True, int32_bias=False),
}


_MOVES = frozenset({"Reshape", "Transpose", "Split", "Slice", "Concat", "Gather", "Expand", "Pad"})
"""The operators that lowerings of the shift move values with."""


def quantize(model: ir.Model, ranges: Mapping[str, Range], recipe: Recipe, layers: Collection[Layer]) -> ir.Model:
    """A copy of ``model`` with ``layers`` quantized; all others, and ``model`` itself, stay as they are.

    ``ranges`` holds the calibrated range of every layer's activation.
    """
    model = model.clone()
    graph = model.graph
    nodes = {str(node.name): node for node in graph}
    for layer in layers:
        node = nodes[layer.name]
        scale, zero_point = _activation_parameters(ranges[layer.activation], recipe)
        source, moved = _value(graph, nodes, layer.activation), node.inputs[0]
        assert moved is not None
        # What only moves values moves bytes. A convolution cannot in ONNX, and padding would have to write the zero point:
        # behind those the shift stays in float.
        source = source if _only_moves(source, moved) else moved
        _quantize_input(graph, node, source, layer.name, scale, zero_point)
        scales = _quantize_weight(graph, node, layer.name, float(scale), recipe)
        if recipe.int32_bias and len(node.inputs) > 2 and node.inputs[2] is not None:
            _quantize_bias(graph, node, layer.name, scales * scale)
    for name in [n for n, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
    return model


def _only_moves(source: ir.Value, value: ir.Value) -> bool:
    """Whether ``value`` holds values of ``source`` and nothing else, in whatever order."""
    node = value.producer()
    if value is source or node is None:
        return value is source
    if node.op_type not in _MOVES or (
        node.op_type == "Pad" and node.attributes.get_string("mode", "constant") == "constant"
    ):
        return False
    return all(v is not None and _only_moves(source, v) for i, v in enumerate(node.inputs) if index_is_data(node, i))


def _activation_parameters(r: Range, recipe: Recipe) -> tuple[Array, Array]:
    """Scale (float32) and zero point of an activation; zero is always representable exactly."""
    low, high = min(r.low, 0.0), max(r.high, 0.0)
    q_low, q_high = recipe.limits
    if recipe.symmetric:
        scale = np.float32(max(-low, high) / q_high)
        return np.array(scale), np.array(0, recipe.activation)
    scale = np.float32((high - low) / (q_high - q_low))
    zero_point = np.clip(np.rint(q_low - low / scale), q_low, q_high)
    return np.array(scale), np.array(zero_point, recipe.activation)


def _quantize_input(
    graph: ir.Graph, node: ir.Node, source: ir.Value, name: str, scale: Array, zero_point: Array
) -> None:
    """source → Q → (whatever moved it to ``node``) → DQ → node."""
    s, z = _constant(graph, f"{name}/x_scale", scale), _constant(graph, f"{name}/x_zero_point", zero_point)
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


def _retype(value: ir.Value, end: ir.Node, dtype: ir.DataType) -> None:
    """What lies between the quantization and ``end`` carries bytes now."""
    for node, index in value.uses():
        if node is not end and index_is_data(node, index):
            for output in node.outputs:
                output.type = ir.TensorType(dtype)
                _retype(output, end, dtype)


def index_is_data(node: ir.Node, index: int) -> bool:
    """Whether input ``index`` of a data-moving operator is the data, not a shape or table."""
    return index == 0 or node.op_type == "Concat"


def _quantize_weight(graph: ir.Graph, node: ir.Node, name: str, x_scale: float, recipe: Recipe) -> Array:
    """int8 weights per output channel (axis 0, as PyTorch stores them); returns their scales."""
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    values = weight.const_value.numpy()
    largest = np.abs(values).reshape(len(values), -1).max(1)
    scales = largest / 127
    if recipe.int32_bias and len(node.inputs) > 2:
        # A bias far larger than its channel's weights must still fit, and the weights' own sum on top of it.
        scales = np.maximum(scales, np.abs(_numpy(node.inputs[2])) / (x_scale * LARGEST_BIAS))
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    rounded = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1)))
    _dequantized(graph, node, 1, f"{name}/weight", np.clip(rounded, -127, 127).astype(np.int8), scales)
    return scales


def _quantize_bias(graph: ir.Graph, node: ir.Node, name: str, scales: Array) -> None:
    rounded = np.rint(_numpy(node.inputs[2]).astype(np.float64) / scales.astype(np.float64))
    _dequantized(graph, node, 2, f"{name}/bias", rounded.astype(np.int32), scales)


def _dequantized(graph: ir.Graph, node: ir.Node, index: int, name: str, quantized: Array, scales: Array) -> None:
    """Put DequantizeLinear(``quantized``), one scale for each entry of axis 0, at an input of ``node``."""
    inputs = [
        _constant(graph, f"{name}_q", quantized),
        _constant(graph, f"{name}_scale", scales.astype(np.float32)),
    ]
    if quantized.dtype == np.int8:  # ONNX Runtime fuses nothing to QGemm where a weight has none
        inputs.append(_constant(graph, f"{name}_zero_point", np.zeros(len(scales), np.int8)))
    value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(quantized.shape))
    graph.insert_before(
        node, ir.node("DequantizeLinear", inputs, {"axis": 0}, outputs=[value], name=f"{name}/dequantize")
    )
    node.replace_input_with(index, value)


def _constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _value(graph: ir.Graph, nodes: Mapping[str, ir.Node], name: str) -> ir.Value:
    return graph.inputs[0] if name == INPUT else nodes[name].outputs[0]


def _numpy(value: ir.Value | None) -> Array:
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()
