"""Translate operators that compute element by element, or along an axis: +, ·, GELU, softmax, means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_exporters.litert.model_writer import Kind, Result, Tensor
from s2mlp_exporters.litert.translation import (
    Axes,
    Constant,
    Emitter,
    Pending,
    Translation,
    Value,
    View,
    identity,
    int32,
)

ADD, SUB = Kind("ADD", "AddOptions"), Kind("SUB", "SubOptions")
MUL, DIV = Kind("MUL", "MulOptions"), Kind("DIV", "DivOptions")
SQUARED_DIFFERENCE = Kind("SQUARED_DIFFERENCE", "SquaredDifferenceOptions")
RSQRT = Kind("RSQRT")

_OF_BYTES = 2
"""The version of an operator that computes with int8."""


def apply(t: Translation, kind: Kind, inputs: list[Value], name: str) -> Value:
    """``kind`` of one or two values, which are broadcast, in the order in which the first view among them lies."""
    if t.whole:
        return _pending(kind, [t.integers_of(x) for x in inputs], name)
    inputs = [t.restored(x) for x in inputs]
    axes = next((x.axes for x in inputs if isinstance(x, View)), None)
    if axes is not None and all(_fits(x, axes) for x in inputs):
        return View(_compute(t, kind, [_in_base_order(t, x, axes) for x in inputs], name), axes)
    return _compute(t, kind, inputs, name)


def _fits(value: Value, axes: Axes) -> bool:
    return value.axes == axes if isinstance(value, View) else isinstance(value, Constant)


def _in_base_order(t: Translation, value: Value, axes: Axes) -> Value:
    if isinstance(value, View):
        return value.base
    assert isinstance(value, Constant)
    wide = value.array.reshape((1,) * (len(axes) - value.array.ndim) + value.shape)
    return t.transposed(Constant(value.name, wide), tuple(np.argsort(axes).tolist()))


def _compute(t: Translation, kind: Kind, inputs: list[Value], name: str) -> Tensor:
    operands = [t.written(x) for x in inputs]
    shape, free = _broadcast(operands)
    return t.add(kind, list(operands), Result(name, shape, free, operands[0].dtype))


def _pending(kind: Kind, operands: list[Tensor], name: str) -> Pending:
    """``kind`` of integers, whose result waits for its scales."""
    shape, free = _broadcast(operands)
    return Pending(replace(kind, version=_OF_BYTES), tuple(operands), Result(name, shape, free), identity(shape))


def _broadcast(operands: list[Tensor]) -> tuple[tuple[int, ...], int | None]:
    """The shape of an operator of ``operands``, and its free axis."""
    shape = np.broadcast_shapes(*(x.shape for x in operands))
    return shape, next((x.free + len(shape) - len(x.shape) for x in operands if x.free is not None), None)


def mean(t: Translation, x: Tensor, axes: list[int], result: Result) -> Tensor:
    """The mean of ``x`` over ``axes``, which stay as axes of one value."""
    return t.add(_reducing("MEAN", keep=True), [x, int32("axis", axes)], result)


def _reducing(name: str, *, keep: bool, version: int = 1) -> Kind:
    """The operator ``name``, a mean or a sum over axes; with ``keep`` these stay as axes of one value."""
    return Kind(name, "ReducerOptions", {"keepDims": keep}, version)


def _elementwise(kind: Kind) -> Emitter:
    def emit(t: Translation, node: Node) -> None:
        t.define(node.name, apply(t, kind, [t.value(name) for name in node.inputs], node.name))

    return emit


def _gelu(t: Translation, node: Node) -> None:
    tanh = node.attributes.get("approximate", "none") != "none"
    _elementwise(Kind("GELU", "GeluOptions", {"approximate": tanh}))(t, node)


def _softmax(t: Translation, node: Node) -> None:
    """Along the last axis, as LiteRT has it: another axis is moved there, and back."""
    value = t.value(node.inputs[0])
    order = list(range(len(value.shape)))
    order.append(order.pop(node.attributes.get("axis", -1)))
    kind, moved = Kind("SOFTMAX", "SoftmaxOptions", {"beta": 1.0}), t.transposed(value, tuple(order))
    made: Value
    if t.whole:
        made = _pending(kind, [t.integers_of(moved)], node.name)
    else:
        x = t.written(moved)
        made = t.add(kind, [x], Result(node.name, x.shape, x.free))
    t.define(node.name, t.transposed(made, tuple(np.argsort(order).tolist())))


def _reduction(name: str) -> Emitter:
    def emit(t: Translation, node: Node) -> None:
        value = t.value(node.inputs[0])
        x = t.integers_of(value) if t.whole else t.written(value)
        if not node.has(1):
            raise node.refused("it is over all axes")
        axes = sorted(axis % len(x.shape) for axis in t.integers(node, 1))
        if x.free in axes:
            raise node.refused("it mixes the images of a batch")
        keep = bool(node.attributes.get("keepdims", 1))
        if keep:
            shape, free = tuple(1 if i in axes else n for i, n in enumerate(x.shape)), x.free
        else:
            shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
            free = None if x.free is None else x.free - sum(axis < x.free for axis in axes)
        result, over = Result(node.name, shape, free), int32("axis", axes)
        if t.whole:
            reducing = _reducing(name, keep=keep, version=_OF_BYTES)
            t.define(node.name, Pending(reducing, (x, over), result, identity(shape)))
        else:
            t.define(node.name, t.add(_reducing(name, keep=keep), [x, over], result))

    return emit


def _power(t: Translation, node: Node) -> None:
    """x^−½, which is an operator of its own."""
    if t.array(node, 1).reshape(-1).tolist() != [-0.5]:
        raise node.refused("its exponent is not −½")
    t.define(node.name, apply(t, RSQRT, [t.value(node.inputs[0])], node.name))


def _cast(t: Translation, node: Node) -> None:
    value = t.value(node.inputs[0])
    if node.attributes["to"] != _FLOAT:
        raise node.refused("it is to another type than float32")
    if isinstance(value, Constant) and value.array.dtype == np.float16:
        t.define(node.name, Constant(value.name, value.array, widened=True))
        return
    base = value.base if isinstance(value, View) else t.written(value)
    if base.dtype.name not in ("uint8", "float32"):
        raise node.refused(f"it is from {base.dtype.name}")
    cast = t.add(Kind("CAST"), [base], Result(node.name, base.shape, base.free))
    t.define(node.name, View(cast, value.axes) if isinstance(value, View) else cast)


_FLOAT = 1
"""TensorProto.FLOAT."""

EMITTERS: dict[str, Emitter] = {
    "Add": _elementwise(ADD),
    "Cast": _cast,
    "Div": _elementwise(DIV),
    "Gelu": _gelu,
    "Mul": _elementwise(MUL),
    "Pow": _power,
    "ReduceMean": _reduction("MEAN"),
    "ReduceSum": _reduction("SUM"),
    "Sigmoid": _elementwise(Kind("LOGISTIC")),
    "Softmax": _softmax,
    "Sub": _elementwise(SUB),
}
