"""The operators of ONNX that this project's graphs have, in PyTorch, as ExecuTorch's XNNPACK runs them best."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_exporters.executorch import quantization
from s2mlp_exporters.executorch.graph_module import Operator, Values

_END = 2**31
"""The end of a slice from which on it is the axis's own."""


def _inputs(v: Values, node: Node) -> list[Tensor]:
    return [v.tensor(name) for name in node.inputs]


def _elementwise(function: Callable[..., Tensor]) -> Operator:
    def apply(v: Values, node: Node) -> Tensor:
        return function(*_inputs(v, node))

    return apply


def _gemm(v: Values, node: Node) -> Tensor:
    if (node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)) != (1.0, 1.0):
        raise node.refused("it has factors")
    a, b = v.tensor(node.inputs[0]), v.tensor(node.inputs[1])
    if node.attributes.get("transA", 0):
        a = a.t()
    turned = b if node.attributes.get("transB", 0) else b.t()  # PyTorch's weights are (out, in)
    bias = v.tensor(node.inputs[2]) if node.has(2) else None
    if v.is_weight(node.inputs[1]):
        if v.is_restored(node.inputs[1]) and not v.is_restored(node.inputs[0]):
            a = quantization.rounded_by_row(a)
        return F.linear(a, turned, _row(node, bias, axis=-1))
    if v.is_weight(node.inputs[0]):  # W·x = (xᵀ·Wᵀ)ᵀ
        if v.is_restored(node.inputs[0]) and not v.is_restored(node.inputs[1]):
            turned = quantization.rounded_by_row(turned)
        return F.linear(turned, a, _row(node, bias, axis=0)).t()
    raise node.refused("neither of its matrices is a constant")


def _row(node: Node, bias: Tensor | None, axis: int) -> Tensor | None:
    """``bias`` as one row, whose values lie along ``axis``."""
    if bias is not None and prod(bias.shape) != bias.shape[axis]:
        raise node.refused("its bias is not one row")
    return bias if bias is None or bias.dim() == 1 else bias.reshape(-1)  # XNNPACK takes constants as they are alone


def _convolution(v: Values, node: Node) -> Tensor:
    if set(node.attributes.get("dilations", (1, 1))) != {1} or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise node.refused("it has dilations, or pads by itself")
    top, left, bottom, right = node.attributes.get("pads", (0, 0, 0, 0))
    x, weight = v.tensor(node.inputs[0]), v.tensor(node.inputs[1])
    bias = v.tensor(node.inputs[2]) if node.has(2) else None
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    strides = list(node.attributes.get("strides", (1, 1)))
    return F.conv2d(x, weight, bias, strides, (top, left), groups=node.attributes.get("group", 1))


def _layer_norm(v: Values, node: Node) -> Tensor:
    """(x − μ) / √(σ² + ε) · γ + β, without the γ and the β that are ones and zeros.

    XNNPACK has no means along the last axis, and each operator that it leaves out cuts the network in two: means are
    products with a row of 1/c here.
    """
    x = v.tensor(node.inputs[0])
    if node.attributes.get("axis", -1) not in (-1, x.dim() - 1) or len(node.outputs) > 1:
        raise node.refused("it is not along the last axis alone")
    average = v.averaging(x.shape[-1])
    centred = x - F.linear(x, average)
    variance = F.linear(centred * centred, average)
    y = centred * torch.rsqrt(variance + node.attributes.get("epsilon", 1e-5))
    if (v.array(node, 1) != 1).any():
        y = y * v.tensor(node.inputs[1])
    return y + v.tensor(node.inputs[2]) if node.has(2) and v.array(node, 2).any() else y


def _gelu(v: Values, node: Node) -> Tensor:
    return F.gelu(v.tensor(node.inputs[0]), approximate=node.attributes.get("approximate", "none"))


def _cast(v: Values, node: Node) -> Tensor:
    if node.attributes["to"] != _FLOAT:
        raise node.refused("it is to another type than float32")
    return v.tensor(node.inputs[0]).to(torch.float32)


_FLOAT = 1
"""TensorProto.FLOAT."""


def _softmax(v: Values, node: Node) -> Tensor:
    return torch.softmax(v.tensor(node.inputs[0]), node.attributes.get("axis", -1))


def _reduction(function: Callable[..., Tensor]) -> Operator:
    def apply(v: Values, node: Node) -> Tensor:
        if not node.has(1):
            raise node.refused("it is over all axes")
        return function(v.tensor(node.inputs[0]), v.integers(node, 1), keepdim=bool(node.attributes.get("keepdims", 1)))

    return apply


def _transpose(v: Values, node: Node) -> Tensor:
    x = v.tensor(node.inputs[0])
    return x.permute(*node.attributes.get("perm", range(x.dim())[::-1]))


def _reshape(v: Values, node: Node) -> Tensor:
    x = v.tensor(node.inputs[0])
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(v.integers(node, 1))])


def _slice(v: Values, node: Node) -> Tensor:
    x = v.tensor(node.inputs[0])
    starts, ends = v.integers(node, 1), v.integers(node, 2)
    axes = v.integers(node, 3) if node.has(3) else list(range(len(starts)))
    if node.has(4) and set(v.integers(node, 4)) != {1}:
        raise node.refused("it skips values")
    for start, end, axis in zip(starts, ends, axes, strict=True):
        x = _cut(x, axis, start, end if end < _END else None)
    return x


def _cut(x: Tensor, axis: int, start: int, end: int | None) -> Tensor:
    return x[(slice(None),) * (axis % x.dim()) + (slice(start, end),)]


def _split(v: Values, node: Node) -> list[Tensor]:
    """Slices, which XNNPACK runs, where the split has an operator of its own."""
    x = v.tensor(node.inputs[0])
    axis, count = node.attributes.get("axis", 0), len(node.outputs)
    sizes = v.integers(node, 1) if node.has(1) else [-(-x.shape[axis] // count)] * count
    ends = [sum(sizes[: i + 1]) for i in range(count)]
    return [_cut(x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _concat(v: Values, node: Node) -> Tensor:
    return torch.cat(_inputs(v, node), node.attributes["axis"])


def _gather(v: Values, node: Node) -> Tensor:
    """Rows of one axis."""
    indices = v.array(node, 1)
    if indices.ndim != 1:
        raise node.refused("its places are not one row")
    return torch.index_select(v.tensor(node.inputs[0]), node.attributes.get("axis", 0), v.tensor(node.inputs[1]))


def _pad(v: Values, node: Node) -> Tensor:
    x = v.tensor(node.inputs[0])
    mode, pads = node.attributes.get("mode", "constant"), v.integers(node, 1)
    axes = v.integers(node, 3) if node.has(3) else list(range(x.dim()))
    around = {axis % x.dim(): (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    if min(pads) < 0:
        raise node.refused("it removes values")
    if mode == "edge":
        for axis, (before, after) in around.items():
            x = torch.cat([*[_cut(x, axis, 0, 1)] * before, x, *[_cut(x, axis, -1, None)] * after], axis)
        return x
    if mode != "constant" or (node.has(2) and v.array(node, 2).any()):
        raise node.refused(f"its mode is {mode}, or it does not pad with zeros")
    return F.pad(x, [n for axis in reversed(range(x.dim())) for n in around.get(axis, (0, 0))])


OPERATORS: dict[str, Operator] = {
    "Add": _elementwise(torch.add),
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _convolution,
    "DequantizeLinear": quantization.dequantize,
    "Div": _elementwise(torch.div),
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": _elementwise(torch.matmul),
    "Mul": _elementwise(torch.mul),
    "Pad": _pad,
    "QuantizeLinear": quantization.quantize,
    "ReduceMean": _reduction(torch.mean),
    "ReduceSum": _reduction(torch.sum),
    "Reshape": _reshape,
    "Sigmoid": _elementwise(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sub": _elementwise(torch.sub),
    "Transpose": _transpose,
}
"""By the name of the operator; one that has none is refused by name."""
