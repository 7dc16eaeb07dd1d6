"""Translate operators that compute element by element, or along an axis: +, ·, GELU, softmax, means."""

from __future__ import annotations

import numpy as np

from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_exporters.coreml.translation import Constant, Emitter, Pixels, Translation, sizes


def _elementwise(operator: str) -> Emitter:
    def emit(t: Translation, node: Node) -> None:
        x, y = t.var(node, 0), t.var(node, 1)
        t.define(node.name, getattr(t.mb, operator)(x=x, y=y, name=t.label(node.name)))

    return emit


def _gelu(t: Translation, node: Node) -> None:
    exact = node.attributes.get("approximate", "none") == "none"
    mode = "EXACT" if exact else "TANH_APPROXIMATION"
    t.define(node.name, t.mb.gelu(x=t.var(node, 0), mode=mode, name=t.label(node.name)))


def _sigmoid(t: Translation, node: Node) -> None:
    t.define(node.name, t.mb.sigmoid(x=t.var(node, 0), name=t.label(node.name)))


def _softmax(t: Translation, node: Node) -> None:
    axis = node.attributes.get("axis", -1)
    t.define(node.name, t.mb.softmax(x=t.var(node, 0), axis=axis, name=t.label(node.name)))


def _reduction(operator: str) -> Emitter:
    def emit(t: Translation, node: Node) -> None:
        x = t.var(node, 0)
        if not node.has(1):
            raise node.refused("it is over all axes")
        axes = sorted(axis % len(x.shape) for axis in t.integers(node, 1))
        if sizes(x)[1] in axes:
            raise node.refused("it mixes the images of a batch")
        keep = bool(node.attributes.get("keepdims", 1))
        t.define(node.name, getattr(t.mb, operator)(x=x, axes=axes, keep_dims=keep, name=t.label(node.name)))

    return emit


def _cast(t: Translation, node: Node) -> None:
    value = t.value(node.inputs[0])
    wanted = _TYPES.get(node.attributes["to"])
    if isinstance(value, Pixels) and wanted == "fp32":  # Core ML gives them as floats
        t.define(node.name, value)
    elif isinstance(value, Constant) and value.array.dtype == np.float16 and wanted == "fp32":
        t.define(node.name, Constant(value.name, value.array, widened=True))
    elif wanted is None or isinstance(value, (Constant, Pixels)):
        raise node.refused("it is to another type than float32 and float16, or of a constant")
    else:
        t.define(node.name, t.mb.cast(x=value, dtype=wanted, name=t.label(node.name)))


_TYPES = {1: "fp32", 10: "fp16"}
"""TensorProto.FLOAT and FLOAT16."""

EMITTERS: dict[str, Emitter] = {
    "Add": _elementwise("add"),
    "Cast": _cast,
    "Div": _elementwise("real_div"),
    "Gelu": _gelu,
    "Mul": _elementwise("mul"),
    "ReduceMean": _reduction("reduce_mean"),
    "ReduceSum": _reduction("reduce_sum"),
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Sub": _elementwise("sub"),
}
