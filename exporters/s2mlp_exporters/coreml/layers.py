"""Translate layers: matrix products, convolutions, LayerNorm, and the int8 weights of products."""

from __future__ import annotations

from math import prod

import numpy as np

from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.coreml.translation import Constant, Emitter, Translation, Value, Var


def _gemm(t: Translation, node: Node) -> None:
    if (node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)) != (1.0, 1.0):
        raise node.refused("it has factors")
    a, b = t.value(node.inputs[0]), t.value(node.inputs[1])
    turned = [bool(node.attributes.get(name, 0)) for name in ("transA", "transB")]
    if isinstance(b, Constant):  # the weights of a linear layer are (out, in)
        weight = b if turned[1] else b.transposed((1, 0))
        x = _turned(t, node, 0) if turned[0] else t.var(node, 0)
        t.define(node.name, _linear(t, x, weight, _bias(t, node, axis=-1), node.name))
    elif isinstance(a, Constant):
        left = a.transposed((1, 0)) if turned[0] else a
        bias = _bias(t, node, axis=0)
        name = node.name if bias is None else f"{node.name}/product"
        y = t.mb.matmul(x=t.written(left), y=t.var(node, 1), transpose_y=turned[1], name=t.label(name))
        if bias is not None:
            column = t.written(Constant(bias.name, bias.array[:, None], bias.widened))
            y = t.mb.add(x=y, y=column, name=t.label(node.name))
        t.define(node.name, y)
    else:
        raise node.refused("neither of its matrices is a constant")


def _turned(t: Translation, node: Node, index: int) -> Var:
    return t.mb.transpose(x=t.var(node, index), perm=[1, 0], name=t.label(f"{node.name}/turned"))


def _bias(t: Translation, node: Node, axis: int) -> Constant | None:
    """The third input as one row: a constant whose values lie along ``axis``."""
    if not node.has(2):
        return None
    value: Value = t.value(node.inputs[2])
    if not isinstance(value, Constant) or prod(value.shape) != value.shape[axis]:
        raise node.refused("its bias is not one constant row")
    return Constant(value.name, value.array.reshape(-1), value.widened)


def _linear(t: Translation, x: Var, weight: Constant, bias: Constant | None, name: str) -> Var:
    """``x`` (…, in) · ``weight``ᵀ (out, in) + ``bias`` (out)."""
    given = {} if bias is None else {"bias": t.written(bias)}
    return t.mb.linear(x=x, weight=t.written(weight), name=t.label(name), **given)


def _matmul(t: Translation, node: Node) -> None:
    b = t.value(node.inputs[1])
    if isinstance(b, Constant) and len(b.shape) == 2:
        t.define(node.name, _linear(t, t.var(node, 0), b.transposed((1, 0)), None, node.name))
    else:
        t.define(node.name, t.mb.matmul(x=t.var(node, 0), y=t.var(node, 1), name=t.label(node.name)))


def _convolution(t: Translation, node: Node) -> None:
    weight = t.value(node.inputs[1])
    if not isinstance(weight, Constant) or len(weight.shape) != 4:
        raise node.refused("it is not a convolution of images with constant weights")
    if set(node.attributes.get("dilations", (1, 1))) != {1} or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise node.refused("it has dilations, or pads by itself")
    top, left, bottom, right = node.attributes.get("pads", (0, 0, 0, 0))
    options = {"bias": t.var(node, 2)} if node.has(2) else {}
    made = t.mb.conv(
        x=t.var(node, 0),
        weight=t.written(weight),
        strides=list(node.attributes.get("strides", (1, 1))),
        pad_type="custom",
        pad=[top, bottom, left, right],
        groups=node.attributes.get("group", 1),
        name=t.label(node.name),
        **options,
    )
    t.define(node.name, made)


def _layer_norm(t: Translation, node: Node) -> None:
    """(x − μ) / √(σ² + ε) · γ + β, one operator here, too."""
    x = t.var(node, 0)
    last = len(x.shape) - 1
    if node.attributes.get("axis", -1) not in (-1, last) or len(node.outputs) > 1:
        raise node.refused("it is not along the last axis alone")
    scale = t.array(node, 1)
    epsilon: Array = np.array(node.attributes.get("epsilon", 1e-5), scale.dtype)
    options = {"gamma": t.var(node, 1), **({"beta": t.var(node, 2)} if node.has(2) else {})}
    t.define(node.name, t.mb.layer_norm(x=x, axes=[-1], epsilon=epsilon[()], name=t.label(node.name), **options))


def _dequantize(t: Translation, node: Node) -> None:
    """int8 weights of one scale a row, which are widened when the model is loaded."""
    value, scales = t.value(node.inputs[0]), t.array(node, 1)
    rows = value.shape[0] if isinstance(value, Constant) and value.shape else 0
    whole = isinstance(value, Constant) and value.array.dtype == np.int8 and scales.shape == (rows,)
    if not isinstance(value, Constant) or not whole or node.attributes.get("axis", 1) != 0:
        raise node.refused("it is not of int8 weights with a scale for each row")
    if node.has(2) and t.array(node, 2).any():
        raise node.refused("its weights have zero points other than 0")
    t.define(node.name, Constant(value.name, value.array, scales=scales))


EMITTERS: dict[str, Emitter] = {
    "Conv": _convolution,
    "DequantizeLinear": _dequantize,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
}
