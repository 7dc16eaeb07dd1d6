"""Translate layers: matrix products, convolutions, LayerNorm."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_exporters.litert.arithmetic import ADD, MUL, RSQRT, SQUARED_DIFFERENCE, SUB, apply, mean
from s2mlp_exporters.litert.model_writer import Kind, Result, Scales, Tensor
from s2mlp_exporters.litert.translation import (
    Axes,
    Constant,
    Emitter,
    Pending,
    Restored,
    Translation,
    Value,
    View,
    identity,
    of_bytes,
)

CHANNELS_LAST: Axes = (0, 2, 3, 1)
CHANNELS_FIRST: Axes = (0, 3, 1, 2)

BYTES = "/q"
"""The end of the name that a value has in the ONNX graph once it is quantized."""


def fully_connected(t: Translation, x: Value, weight: Constant, bias: Value | None, name: str) -> Tensor | Pending:
    """``x`` (…, in) · ``weight``ᵀ (out, in) + ``bias`` (out)."""
    if isinstance(x, Restored) and weight.scales:
        integers = t.written(x.integers)
        kind = Kind("FULLY_CONNECTED", "FullyConnectedOptions", {"keepNumDims": True}, 5)
        result = Result(name, (*integers.shape[:-1], weight.shape[0]), integers.free)
        return Pending(kind, (integers, weight, bias), result, identity(result.shape))
    tensor = t.written(x)
    # From the fifth version on it can keep the axes of its input. The twelfth has a scale for each row of int8 weights, and
    # quantizes the rows of its float input as they come.
    options = {"keepNumDims": True, "asymmetricQuantizeInputs": weight.scales is not None}
    kind = Kind("FULLY_CONNECTED", "FullyConnectedOptions", options, 12 if weight.scales else 5)
    return t.add(kind, [tensor, weight, bias], Result(name, (*tensor.shape[:-1], weight.shape[0]), tensor.free))


def _gemm(t: Translation, node: Node) -> None:
    if (node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)) != (1.0, 1.0):
        raise node.refused("it has factors")
    a, b = t.value(node.inputs[0]), t.value(node.inputs[1])
    if node.attributes.get("transA", 0):
        a = t.transposed(a, (1, 0))
    turned = b if node.attributes.get("transB", 0) else t.transposed(b, (1, 0))  # LiteRT's weights are (out, in)
    bias = t.value(node.inputs[2]) if node.has(2) else None
    if isinstance(turned, Constant):
        t.define(node.name, fully_connected(t, a, turned, _row(node, bias, axis=-1), node.name))
    elif isinstance(a, Constant):  # W·x = (xᵀ·Wᵀ)ᵀ
        made = fully_connected(t, turned, a, _row(node, bias, axis=0), node.name)
        t.define(node.name, t.transposed(made, (1, 0)))
    else:
        raise node.refused("neither of its matrices is a constant")


def _row(node: Node, bias: Value | None, axis: int) -> Constant | None:
    """``bias`` as one row: a constant whose values lie along ``axis``."""
    if bias is None:
        return None
    if not isinstance(bias, Constant) or prod(bias.shape) != bias.shape[axis]:
        raise node.refused("its bias is not one constant row")
    return replace(bias, array=bias.array.reshape(-1))


def _matmul(t: Translation, node: Node) -> None:
    a, b = map(t.value, node.inputs)
    if isinstance(b, Constant) and len(b.shape) == 2:
        turned = t.transposed(b, (1, 0))
        assert isinstance(turned, Constant)
        t.define(node.name, fully_connected(t, a, turned, None, node.name))
        return
    x, y = t.written(a), t.written(b)
    shape = (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    free = next((z.free + len(shape) - len(z.shape) for z in (x, y) if z.free is not None), None)
    if free is not None and free >= len(shape) - 2:
        raise node.refused("it mixes the images of a batch")
    t.define(node.name, t.add(Kind("BATCH_MATMUL", "BatchMatMulOptions"), [x, y], Result(node.name, shape, free)))


def _convolution(t: Translation, node: Node) -> None:
    weight = t.value(node.inputs[1])
    if not isinstance(weight, Constant) or len(weight.shape) != 4:
        raise node.refused("it is not a convolution of images with constant weights")
    if set(node.attributes.get("dilations", (1, 1))) != {1} or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise node.refused("it has dilations, or pads by itself")
    value = t.transposed(t.value(node.inputs[0]), CHANNELS_LAST)
    in_bytes = isinstance(value, Restored) and weight.scales is not None
    x = t.written(value.integers if isinstance(value, Restored) and in_bytes else value)
    top, left, bottom, right = node.attributes.get("pads", (0, 0, 0, 0))
    if any((top, left, bottom, right)):
        x = pad(t, x, [(0, 0), (top, bottom), (left, right), (0, 0)], f"{node.name}/pad")
    group, channels = node.attributes.get("group", 1), x.shape[-1]
    strides = tuple(node.attributes.get("strides", (1, 1)))
    options = {"padding": _VALID, "strideH": strides[0], "strideW": strides[1]}
    if group == 1:
        kind, order = Kind("CONV_2D", "Conv2DOptions", options, 3 if in_bytes else 1), (0, 2, 3, 1)
    elif group == channels == weight.shape[0]:
        options["depthMultiplier"] = 1
        kind, order = Kind("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", options), (1, 2, 3, 0)
    else:
        raise node.refused(f"it has {group} groups for {channels} channels")
    bias = t.value(node.inputs[2]) if node.has(2) else _no_bias(x, weight, node.name)
    sizes = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], weight.shape[2:], strides, strict=True))
    result = Result(node.name, (x.shape[0], *sizes, weight.shape[0]), x.free)
    inputs: list[Value | None] = [x, t.transposed(weight, order), bias]
    made = Pending(kind, tuple(inputs), result, identity(result.shape)) if in_bytes else t.add(kind, inputs, result)
    t.define(node.name, t.transposed(made, CHANNELS_FIRST))


def _no_bias(x: Tensor, weight: Constant, name: str) -> Constant:
    """A bias of zeros, of the type that a convolution of ``x`` with ``weight`` adds."""
    if x.scales is None or weight.scales is None:
        return Constant(f"{name}/bias", np.zeros(len(weight.array), np.float32))
    scales = Scales(x.scales.scale * weight.scales.scale)
    return Constant(f"{name}/bias", np.zeros(len(weight.array), np.int32), scales=scales)


_VALID = 1
"""Padding.VALID of the schema: none."""


def pad(t: Translation, x: Tensor, widths: list[tuple[int, int]], name: str) -> Tensor:
    """``x`` with zeros around it: before and after each axis."""
    if x.free is not None and any(widths[x.free]):
        raise ValueError("the batch cannot be padded")
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, widths, strict=True))
    table = Constant(f"pads{'x'.join(str(n) for pair in widths for n in pair)}", np.array(widths, np.int32))
    return t.add(Kind("PAD", "PadOptions", version=of_bytes(x)), [x, table], x.like(name, shape, x.free))


def _layer_norm(t: Translation, node: Node) -> None:
    """(x − μ) / √(σ² + ε) · γ + β, without the γ and the β that are ones and zeros."""
    x, name = t.tensor(node.inputs[0]), node.name
    last = len(x.shape) - 1
    if node.attributes.get("axis", -1) not in (-1, last) or len(node.outputs) > 1:
        raise node.refused("it is not along the last axis alone")
    column = (*x.shape[:-1], 1)
    mu = mean(t, x, [last], Result(f"{name}/mean", column, x.free))
    squares = apply(t, SQUARED_DIFFERENCE, [x, mu], f"{name}/squares")
    variance = mean(t, t.written(squares), [last], Result(f"{name}/variance", column, x.free))
    epsilon = np.float32(node.attributes.get("epsilon", 1e-5))
    y = apply(t, ADD, [variance, Constant(f"epsilon{epsilon}", np.array([epsilon]))], f"{name}/guarded")
    y = apply(t, RSQRT, [y], f"{name}/inverse")
    steps: list[tuple[Kind, Value]] = [(MUL, y)]
    if (t.array(node, 1) != 1).any():
        steps.append((MUL, t.value(node.inputs[1])))
    if node.has(2) and t.array(node, 2).any():
        steps.append((ADD, t.value(node.inputs[2])))
    value: Value = apply(t, SUB, [x, mu], f"{name}/centred")
    for i, (kind, operand) in enumerate(steps, start=1):
        value = apply(t, kind, [value, operand], name if i == len(steps) else f"{name}/step{i}")
    t.define(name, value)


def _dequantize(t: Translation, node: Node) -> None:
    """Constants of one scale a row, or values of one scale, which a product reads as they are."""
    value, scales = t.value(node.inputs[0]), t.array(node, 1)
    if not isinstance(value, Constant):
        if not isinstance(value, Tensor | View) or not scales_of(t, node).same(t.base(value)[0].scales):
            raise node.refused("it is not of int8 values with the scale that they were quantized with")
        t.define(node.name, Restored(node.name, value))
        return
    if value.array.dtype == np.int8 and not scales.shape and not node.has(2):  # a number, or a row, of one scale
        t.define(node.name, replace(value, scales=Scales(scales.reshape(1))))
        return
    rows = value.shape[0] if value.shape else 0
    whole = value.array.dtype in (np.int8, np.int32) and scales.shape == (rows,)
    if not whole or node.attributes.get("axis", 1) != 0:
        raise node.refused("it is not of int8 weights with a scale for each row")
    if node.has(2) and t.array(node, 2).any():
        raise node.refused("its weights have zero points other than 0")
    t.define(node.name, replace(value, scales=Scales(scales)))


def _quantize(t: Translation, node: Node) -> None:
    # Where all values are int8, each is called as the ONNX graph calls it in float.
    name = node.name.removesuffix(BYTES) if t.whole else node.name
    t.define(node.name, t.quantized(t.value(node.inputs[0]), scales_of(t, node), name))


def scales_of(t: Translation, node: Node) -> Scales:
    """The one scale and zero point of values that ``node`` quantizes or restores."""
    scale, zero_point = t.array(node, 1), t.array(node, 2) if node.has(2) else np.zeros(0, np.uint8)
    if scale.shape or zero_point.shape or zero_point.dtype != np.int8:
        raise node.refused("it is not of int8 values with one scale and zero point")
    return Scales(scale.reshape(1), zero_point=int(zero_point))


EMITTERS: dict[str, Emitter] = {
    "Conv": _convolution,
    "DequantizeLinear": _dequantize,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "QuantizeLinear": _quantize,
}
