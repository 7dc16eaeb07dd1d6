"""Take the quantization out of an int8 graph: the same layers in float, on the weights that int8 restores.

Its numbers are those of neither graph, but it runs the operators of the float graph in their shapes, so it shows what they cost.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import FunctionalPass, PassResult, PostconditionError

from s2mlp_deploy.graph.builder import add_initializer, array_of, remove_unused_initializers
from s2mlp_deploy.schema.array import Array

_BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
_PAIRS = ("QuantizeLinear", "DequantizeLinear")


class Dequantize(FunctionalPass):
    """A copy of a graph without QuantizeLinear and DequantizeLinear.

    Requires: between a pair, values are only moved; scales and zero points are constants.
    Ensures: no such operator is left, and nothing else has changed but the type of the values that were moved.
    """

    def call(self, model: ir.Model) -> PassResult:
        copy = model.clone()
        graph, float_type = copy.graph, ir.TensorType(ir.DataType.FLOAT)
        for node in [node for node in graph if node.op_type in _PAIRS]:
            quantized, scale = node.inputs[:2]
            assert quantized is not None and scale is not None
            integers = array_of(quantized)
            kept = quantized if integers is None else add_initializer(graph, f"{quantized.name}/float", _restored(node))
            node.outputs[0].replace_all_uses_with(kept)
            graph.remove(node, safe=True)
            float_type = ir.TensorType(scale.dtype or float_type.dtype)
        for value in (output for node in graph for output in node.outputs):
            if value.dtype in _BYTES:
                value.type = float_type
        remove_unused_initializers(graph)
        return PassResult(copy, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """No pair is left."""
        if left := [node.name for node in model.graph if node.op_type in _PAIRS]:
            raise PostconditionError(f"{left[0]} is left")


def _restored(node: ir.Node) -> Array:
    """The values that a DequantizeLinear of constants restores."""
    integers, scale, *zero = (array_of(value) for value in node.inputs)
    assert integers is not None and scale is not None
    offset = zero[0] if zero and zero[0] is not None else np.zeros((), integers.dtype)
    if scale.ndim:
        axis = node.attributes["axis"].as_int()
        shape = [-1 if i == axis else 1 for i in range(integers.ndim)]
        scale = scale.reshape(shape)
        offset = offset.reshape(shape) if offset.ndim else offset
    restored: Array = ((integers.astype(np.int32) - offset.astype(np.int32)) * scale).astype(scale.dtype)
    return restored
