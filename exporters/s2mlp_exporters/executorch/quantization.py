"""ONNX's quantization in PyTorch's operators for it, which XNNPACK fuses into products of bytes."""

from __future__ import annotations

import torch
from torch import Tensor

from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_exporters.executorch.graph_module import Values

_LOWEST, _HIGHEST = -128, 127


def quantize(v: Values, node: Node) -> Tensor:
    """QuantizeLinear to int8, with one scale."""
    quantized: Tensor = _operators().quantize_per_tensor.default(v.tensor(node.inputs[0]), *_one_scale(v, node))
    return quantized


def dequantize(v: Values, node: Node) -> Tensor:
    """DequantizeLinear of int8: of activations with one scale, or of weights with a scale for each row."""
    x = v.tensor(node.inputs[0])
    scales = v.array(node, 1)
    if scales.ndim == 0:
        restored: Tensor = _operators().dequantize_per_tensor.default(x, *_one_scale(v, node))
        return restored
    if node.attributes.get("axis", 1) != 0 or x.dtype != torch.int8 or (node.has(2) and v.array(node, 2).any()):
        raise node.refused("it is not of int8 weights with a scale for each row")
    zeros = v.zeros(scales.size)
    restored = _operators().dequantize_per_channel.default(
        x, v.tensor(node.inputs[1]), zeros, 0, -_HIGHEST, _HIGHEST, torch.int8
    )
    return restored


def rounded_by_row(x: Tensor) -> Tensor:
    """``x`` as the runtime rounds it before a product with int8 weights: XNNPACK takes a scale for each row."""
    operators = _operators()
    scale, zero_point = operators.choose_qparams.tensor(x, _LOWEST, _HIGHEST, _EPSILON, torch.int8)
    parameters = scale, zero_point, _LOWEST, _HIGHEST, torch.int8
    restored: Tensor = operators.dequantize_per_tensor.tensor(
        operators.quantize_per_tensor.tensor(x, *parameters), *parameters
    )
    return restored


_EPSILON = 2.0**-23
"""The smallest scale, as PyTorch's observers have it."""


def _one_scale(v: Values, node: Node) -> tuple[float, int, int, int, torch.dtype]:
    scale, zero_point = v.array(node, 1), v.array(node, 2)
    if scale.ndim or zero_point.dtype.name != "int8":
        raise node.refused("it has not one scale, or is not to int8")
    return float(scale), int(zero_point), _LOWEST, _HIGHEST, torch.int8


def _operators() -> torch._ops._OpNamespace:
    import torch.ao.quantization.fx._decomposed  # registers them

    return torch.ops.quantized_decomposed
