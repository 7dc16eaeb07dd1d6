"""Move the affine part of LayerNormalization into the matrix products behind it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from s2mlp_deploy.graph.builder import add_initializer, array_of, constant_of, remove_unused_initializers
from s2mlp_deploy.passes.preconditions import require_float32


class FoldLayerNormAffineIntoGemm(InPlacePass):
    """Move LayerNorm's γ and β into the Gemm behind it.

    With n = (x − mean) / σ, LN(x) = γ ⊙ n + β, and therefore

        W·LN(x) + b  =  (W·diag(γ))·n + (W·β + b)

    The mean over positions commutes with both sides. Each new number is rounded once: products of
    float32 round like that by themselves, and the sums of W·β are formed in float64.

    Matches: a LayerNormalization whose γ (and β) are constant, and all of whose readers are Gemms (transB = 1, alpha =
    beta = 1) that take it as first input, with a constant weight and bias of their own; perhaps behind Reshape, Transpose
    and ReduceMean that treat every channel alike, as the mean over positions before the classifier does. (Zeros that pad
    such a mean do not commute with β.) Everything else stays as it is.
    Requires: a float32 graph.
    Ensures: γ of what matched is a shared vector of ones, β is gone, and no initializer is left unused.
    """

    def requires(self, model: ir.Model) -> None:
        """The graph is float32: integers cannot take up γ."""
        require_float32(model)

    def call(self, model: ir.Model) -> PassResult:
        modified = False
        for node in model.graph:
            if gemms := _gemms_to_fold(node):
                _fold(model.graph, node, gemms)
                modified = True
        if modified:
            remove_unused_initializers(model.graph)
        return PassResult(model, modified=modified)

    def ensures(self, model: ir.Model) -> None:
        """Nothing is left that matches."""
        if left := [str(node.name) for node in model.graph if _gemms_to_fold(node)]:
            raise PostconditionError(f"γ or β is left in {', '.join(left[:4])}")


def _gemms_to_fold(norm: ir.Node) -> list[ir.Node]:
    """The Gemms that take up γ and β of the node ``norm``; none where it does not match, or has nothing to move."""
    if norm.op_type != "LayerNormalization":
        return []
    gamma, has_beta = array_of(norm.inputs[1]), len(norm.inputs) > 2
    if gamma is None or (has_beta and array_of(norm.inputs[2]) is None):
        return []
    return [] if not has_beta and (gamma == 1).all() else _gemms_behind(norm.outputs[0], gamma.size) or []


def _fold(graph: ir.Graph, norm: ir.Node, gemms: list[ir.Node]) -> None:
    gamma = constant_of(norm.inputs[1])
    beta = array_of(norm.inputs[2]) if len(norm.inputs) > 2 else None
    for gemm in gemms:
        weight, name = constant_of(gemm.inputs[1]), str(gemm.inputs[1].name)  # type: ignore[union-attr]
        if beta is not None:
            bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
            old = 0.0 if bias is None else constant_of(bias)
            bias_name = f"{name.removesuffix('.weight')}.bias" if bias is None else str(bias.name)
            folded = (weight.astype(np.float64) @ beta + old).astype(np.float32)
            gemm.resize_inputs(3)
            gemm.replace_input_with(2, add_initializer(graph, bias_name, folded))
        gemm.replace_input_with(1, add_initializer(graph, name, weight * gamma))
    norm.replace_input_with(1, _ones(graph, gamma.size))
    norm.resize_inputs(2)


def _gemms_behind(value: ir.Value, channels: int) -> list[ir.Node] | None:
    """The Gemms that consume ``value`` (…, channels) and nothing else does; None where something else does."""
    gemms = []
    if value.is_graph_output() or not value.uses():
        return None
    for node, index in value.uses():
        if index == 0 and (_regroups_positions(node, channels) or _averages_positions(node)):
            behind = _gemms_behind(node.outputs[0], channels)
            if behind is None:
                return None
            gemms += behind
        elif node.op_type == "Gemm" and index == 0 and _is_plain(node):
            gemms.append(node)
        else:
            return None
    return gemms


def _is_plain(gemm: ir.Node) -> bool:
    def number(name: str, default: float) -> float:
        attribute = gemm.attributes.get(name)
        return default if attribute is None else float(attribute.value)

    own = all(array_of(value) is not None and len(value.uses()) == 1 for value in gemm.inputs[1:])  # type: ignore[union-attr]
    scales = number("alpha", 1), number("beta", 1)
    return own and scales == (1, 1) and number("transA", 0) == 0 and number("transB", 0) == 1


def _regroups_positions(node: ir.Node, channels: int) -> bool:
    """Whether ``node`` is a Reshape, or a Transpose, that leaves channels last and whole."""
    if node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else [0]
        return order[-1] == len(order) - 1 > 0
    if node.op_type != "Reshape":
        return False
    shape = array_of(node.inputs[1])
    if shape is None:  # one computed for dynamic sizes; it comes from the map itself
        return node.inputs[1] is not None and str(node.inputs[1].name).endswith("/map_shape")
    return shape.size > 1 and int(shape[-1]) == channels


def _averages_positions(node: ir.Node) -> bool:
    """Whether ``node`` is a mean over axes before the last; the Reshape before it gives the map's rank."""
    source = node.inputs[0].producer() if node.op_type == "ReduceMean" and node.inputs[0] is not None else None
    if source is None or source.op_type != "Reshape":
        return False
    axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    shape = array_of(source.inputs[1])
    return axes is not None and shape is not None and all(0 <= axis < shape.size - 1 for axis in axes.tolist())


def _ones(graph: ir.Graph, channels: int) -> ir.Value:
    name = f"ones{channels}"
    return graph.initializers.get(name) or add_initializer(graph, name, np.ones(channels, np.float32))
