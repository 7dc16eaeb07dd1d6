"""The operators that exporters compute shapes and indices with, on arrays that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.schema.array import Array

Computation: TypeAlias = Callable[[ir.Node, Sequence[Array]], Array]


def _elementwise(function: Callable[..., Array]) -> Computation:
    return lambda node, inputs: function(*inputs)


def _divide(node: ir.Node, inputs: Sequence[Array]) -> Array:
    a, b = inputs
    if not np.issubdtype(a.dtype, np.integer):
        return a / b
    quotient = np.abs(a) // np.abs(b)  # ONNX rounds toward zero
    return np.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype)


def _modulo(node: ir.Node, inputs: Sequence[Array]) -> Array:
    return np.fmod(*inputs) if node.attributes.get_int("fmod", 0) else np.mod(*inputs)


def _cast(node: ir.Node, inputs: Sequence[Array]) -> Array:
    return inputs[0].astype(ir.DataType(node.attributes["to"].as_int()).numpy())


def _constant_of_shape(node: ir.Node, inputs: Sequence[Array]) -> Array:
    value = node.attributes.get("value")
    fill = value.as_tensor().numpy().reshape(()) if value is not None else np.float32(0)
    return np.broadcast_to(fill, tuple(int(n) for n in inputs[0]))


def _range(node: ir.Node, inputs: Sequence[Array]) -> Array:
    start, limit, delta = (array.reshape(()).item() for array in inputs)
    return np.arange(start, limit, delta, dtype=inputs[0].dtype)


def _reduced(function: Callable[..., Array]) -> Computation:
    def reduce(node: ir.Node, inputs: Sequence[Array]) -> Array:
        data, keep = inputs[0], bool(node.attributes.get_int("keepdims", 1))
        if len(inputs) > 1:
            axes: tuple[int, ...] | None = tuple(int(i) for i in inputs[1])
        else:
            axes = tuple(node.attributes["axes"].as_ints()) if "axes" in node.attributes else None
        if axes == () and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
            return data
        return np.asarray(function(data, axis=axes or None, keepdims=keep)).astype(data.dtype)

    return reduce


def _largest(node: ir.Node, inputs: Sequence[Array]) -> Array:
    result = inputs[0]
    for other in inputs[1:]:
        result = np.maximum(result, other)
    return result


def _smallest(node: ir.Node, inputs: Sequence[Array]) -> Array:
    result = inputs[0]
    for other in inputs[1:]:
        result = np.minimum(result, other)
    return result


def _non_zero(node: ir.Node, inputs: Sequence[Array]) -> Array:
    return np.array(np.nonzero(inputs[0]), np.int64)


COMPUTATIONS: dict[str, Computation] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Equal": _elementwise(np.equal),
    "Floor": _elementwise(np.floor),
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Max": _largest,
    "Min": _smallest,
    "Mod": _modulo,
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "NonZero": _non_zero,
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Range": _range,
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Sign": _elementwise(np.sign),
    "Sub": _elementwise(np.subtract),
    "Xor": _elementwise(np.logical_xor),
}
