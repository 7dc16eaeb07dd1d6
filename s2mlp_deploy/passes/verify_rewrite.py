"""Compare a graph of lower precision with the float32 graph that it was made from, number by number.

Its logits show little: they are some way off by design, and a wrong scale or two hides in that. But with the rounding
taken back, every node is the float32 graph's and every weight is the one next to the float32 one; at int8, every
activation is quantized for the range that was calibrated. Only the graphs are read here, not the passes that wrote
them: :class:`~s2mlp_deploy.passes.precision_pass.PrecisionPass` ensures that no difference is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import constant_of
from s2mlp_deploy.graph.layer import INPUT, Layer
from s2mlp_deploy.passes.moves import is_data
from s2mlp_deploy.passes.recipe import LARGEST_BIAS, Range, Recipe
from s2mlp_deploy.schema.array import Array

CAST, Q, DQ = "Cast", "QuantizeLinear", "DequantizeLinear"

PRODUCT = "/product"
"""The end of the name of an output that is quantized: its restored values have the name that it had."""

HALF = 0.5 + 1e-3
"""Half a quantization step, and its rounding in float32."""


def rounding_differences(rounded: ir.Graph, original: ir.Graph) -> Iterator[str]:
    """Each difference of ``rounded`` (float16 or bfloat16) from ``original`` by more than one rounding, in words."""
    nodes = [node for node in rounded if node.op_type != CAST]
    if [kind_of(node)[:3] for node in nodes] != [kind_of(node)[:3] for node in original]:
        yield "its operators are others"
        return
    for node, old in zip(nodes, original, strict=True):
        for index, (new, value) in enumerate(zip(node.inputs, old.inputs, strict=True)):
            if not _is_rounded(new, value):
                yield f"input {index} of {node.name} is another"


def _is_rounded(new: ir.Value | None, old: ir.Value | None) -> bool:
    """Whether a node reads the same inputs as before, rounded once."""
    while cast := made_by(new, CAST):
        new = cast.inputs[0]
    if new is None or old is None:
        return new is old
    if old.const_value is None:
        return new.name in (old.name, f"{old.name}/float16", f"{old.name}/bfloat16")
    if new.const_value is None:
        return False
    found, float32 = constant_of(new), constant_of(old)
    return found.shape == float32.shape and np.array_equal(found, float32.astype(found.dtype))


def storage_differences(stored: ir.Graph, original: ir.Graph) -> Iterator[str]:
    """Each difference of ``stored``, whose matrices are int8 with a scale a row, from ``original``, in words."""
    nodes = [node for node in stored if node.op_type != DQ]
    if [kind_of(node) for node in nodes] != [kind_of(node) for node in original]:
        yield "its operators are others"
        return
    for node, old in zip(nodes, original, strict=True):
        for index, (new, value) in enumerate(zip(node.inputs, old.inputs, strict=True)):
            restored = restored_constant(new)
            if not (_is_same(new, value) if restored is None else _is_nearest(restored, constant_of(value))):
                yield f"input {index} of {node.name} is another"


def _is_nearest(restored: _Restored, matrix: Array) -> bool:
    """Whether each row is within half of the step that 8 bits allow for it."""
    steps = np.abs(matrix).max(1, keepdims=True) / 127
    return restored.value.shape == matrix.shape and bool((np.abs(restored.value - matrix) <= HALF * steps).all())


def quantization_differences(
    graph: ir.Graph, original: ir.Graph, ranges: Mapping[str, Range], recipe: Recipe, layers: Collection[Layer]
) -> Iterator[str]:
    """Each difference of ``graph`` from ``original`` with ``layers`` in int8 for activations' ``ranges``, in words."""
    nodes = [node for node in graph if node.op_type not in (Q, DQ)]
    wanted = {layer.name: layer for layer in layers}
    in_bytes = {f"{name}{PRODUCT}": name for name in wanted} if recipe.outputs else {}
    if [kind_of(node, in_bytes) for node in nodes] != [kind_of(node) for node in original]:
        yield "its operators are others"
        return
    if [value.name for value in graph.outputs] != [value.name for value in original.outputs]:
        yield "its outputs are others"
    sources = {INPUT: INPUT, **{str(node.name): str(node.outputs[0].name) for node in original}}
    for node, old in zip(nodes, original, strict=True):
        layer = wanted.get(str(node.name))
        for index, (new, value) in enumerate(zip(node.inputs, old.inputs, strict=True)):
            if not (layer and index < 3 and made_by(new, DQ)) and not _is_same(new, value):
                yield f"input {index} of {node.name} is another"
        if layer:
            pair = QuantizedLayer(node, old, recipe)
            yield from pair.differences(ranges[layer.activation], {sources[layer.activation], str(old.inputs[0].name)})  # type: ignore[union-attr]
            if recipe.outputs:
                yield from pair.output_differences(ranges[layer.name])


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer in int8, and the same layer in float32."""

    node: ir.Node
    original: ir.Node
    recipe: Recipe

    def differences(self, wanted: Range, sources: Collection[str]) -> Iterator[str]:
        """Differences in activation (one of ``sources``, quantized for ``wanted``), weight and bias, in words."""
        name = self.node.name
        scale = dequantized_by(self.node.inputs[0])
        if scale is None:
            yield f"the input of {name} is not quantized"
            return
        if not comes_from(self.node.inputs[0], sources):
            yield f"the input of {name} is quantized in one way and read in another, or is another"
        if not covers(self.recipe, scale, wanted):
            yield f"the input of {name} is quantized for another range than {wanted.low:.4g} to {wanted.high:.4g}"
        weight = restored_constant(self.node.inputs[1])
        if weight is None or not self._is_near(weight.value, float(scale[0])):
            yield f"the weight of {name} is another"
        elif self.recipe.int32_bias and len(self.original.inputs) > 2:
            bias, old = restored_constant(self.node.inputs[2]), constant_of(self.original.inputs[2])
            product = weight.scale * scale[0]
            if (
                bias is None
                or not np.allclose(bias.scale, product, rtol=1e-6, atol=0)
                or not (np.abs(bias.value - old) <= HALF * product).all()
            ):
                yield f"the bias of {name} is another"

    def output_differences(self, wanted: Range) -> Iterator[str]:
        """Differences in the output, which is quantized for ``wanted`` and restored under its old name, in words."""
        name, value = self.node.name, self.node.outputs[0]
        quantize = _only_user(value, Q)
        restore = _only_user(quantize.outputs[0], DQ) if quantize else None
        if quantize is None or restore is None or restore.outputs[0].name != self.original.outputs[0].name:
            yield f"the output of {name} is not quantized"
            return
        own = [constant_of(v) for v in restore.inputs[1:]]
        if not all(np.array_equal(constant_of(v), mine) for v, mine in zip(quantize.inputs[1:], own, strict=True)):
            yield f"the output of {name} is quantized in one way and read in another"
        elif own[0].shape or own[1].shape or not covers(self.recipe, (own[0], own[1]), wanted):
            yield f"the output of {name} is quantized for another range than {wanted.low:.4g} to {wanted.high:.4g}"

    def _is_near(self, weight: Array, x_scale: float) -> bool:
        """Whether each channel's weights are within half of the step that 8 bits allow, or that a large bias needs."""
        old = constant_of(self.original.inputs[1])
        rows = old.reshape(len(old), -1)
        steps = np.abs(rows).max(1) / 127
        if self.recipe.int32_bias and len(self.original.inputs) > 2:
            steps = np.maximum(steps, np.abs(constant_of(self.original.inputs[2])) / (x_scale * LARGEST_BIAS))
        steps = self.recipe.scale(steps)
        return bool((np.abs(weight.reshape(rows.shape) - rows) <= HALF * steps[:, None]).all())


def covers(recipe: Recipe, parameters: tuple[Array, Array], wanted: Range) -> bool:
    """Whether the range of ``parameters``, scale and zero point, holds the calibrated one, and uses all steps for it."""
    scale, zero_point = parameters
    low, high = min(wanted.low, 0.0), max(wanted.high, 0.0)
    q_low, q_high = recipe.limits
    if recipe.symmetric:
        high = float(recipe.scale(max(high, -low) / q_high)) * q_high
        low = -high
    ends = (np.array([q_low, q_high]) - float(zero_point)) * float(scale)
    whole = abs(ends[1] - ends[0] - (high - low)) <= 1e-5 * (high - low)
    return bool(zero_point.dtype == recipe.activation and whole and (np.abs(ends - [low, high]) <= HALF * scale).all())


@dataclass(frozen=True)
class _Restored:
    """The dequantized values in float64, and the scale of each entry of axis 0."""

    value: Array
    scale: Array


def restored_constant(value: ir.Value | None) -> _Restored | None:
    node = made_by(value, DQ)
    if node is None or any(v is None or v.const_value is None for v in node.inputs):
        return None
    integers, scale, *zero = (constant_of(v) for v in node.inputs)
    if scale.ndim and "axis" in node.attributes:
        axis = node.attributes["axis"].as_int()
        shape = [-1 if i == axis else 1 for i in range(integers.ndim)]
        scale, zero = scale.reshape(shape), [z.reshape(shape) for z in zero]
    return _Restored((integers.astype(np.float64) - (zero[0] if zero else 0)) * scale, scale.reshape(-1))


def dequantized_by(value: ir.Value | None) -> tuple[Array, Array] | None:
    """Scale and zero point, each a single number, where an activation comes from DequantizeLinear."""
    node = made_by(value, DQ)
    if node is None or len(node.inputs) != 3:
        return None
    scale, zero_point = constant_of(node.inputs[1]), constant_of(node.inputs[2])
    return None if scale.shape or zero_point.shape else (scale, zero_point)


def comes_from(value: ir.Value | None, sources: Collection[str]) -> bool:
    """Whether dequantized ``value`` is one of ``sources``, quantized with the same parameters and only moved since."""
    node, own = made_by(value, DQ), dequantized_by(value)
    found = list(_quantizers(node.inputs[0])) if node else []
    return bool(found) and all(
        by is not None
        and by.inputs[0] is not None
        and by.inputs[0].name in sources
        and own is not None
        and all(np.array_equal(constant_of(v), mine) for v, mine in zip(by.inputs[1:], own, strict=True))
        for by in found
    )


def _quantizers(value: ir.Value | None) -> Iterator[ir.Node | None]:
    """The nodes that quantized what ``value`` holds; None where something was never quantized."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type == DQ:
        yield None
    elif node.op_type == Q:
        yield node
    else:
        for index, moved in enumerate(node.inputs):
            if is_data(node, index):
                yield from _quantizers(moved)


def _is_same(new: ir.Value | None, old: ir.Value | None) -> bool:
    """Whether a node reads the same inputs as before, perhaps as moved bytes."""
    if new is None or old is None:
        return new is old
    if old.const_value is not None:
        shared = new.const_value is old.const_value
        return shared or (new.const_value is not None and np.array_equal(constant_of(new), constant_of(old)))
    if quantizer := made_by(new, Q):
        new = quantizer.inputs[0]
    return new is not None and new.name == old.name


def _only_user(value: ir.Value, op_type: str) -> ir.Node | None:
    """The node that reads ``value``, if there is one alone, of this type."""
    users = [node for node, _ in value.uses()]
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None


def made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that ``value`` comes from, if it is of this type."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None


def kind_of(
    node: ir.Node, renamed: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, str, tuple[tuple[str, str], ...], tuple[str | None, ...], int]:
    """Everything about a node except its inputs; its outputs by their old names where ``renamed`` has them."""
    attributes = tuple(sorted((name, repr(value.value)) for name, value in node.attributes.items()))
    outputs = tuple(renamed.get(str(value.name), value.name) for value in node.outputs)
    return str(node.name), node.op_type, attributes, outputs, len(node.inputs)
