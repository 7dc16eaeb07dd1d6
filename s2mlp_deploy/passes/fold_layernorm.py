"""Small passes over the emitted graph, each exact in real arithmetic.

A pass states its algebra above the code, changes what matches, and leaves everything else alone:
a near-miss is no error.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult


class FoldLayerNormAffineIntoGemm(InPlacePass):
    """Move LayerNorm's γ and β into the Gemm behind it.

    With n = (x − mean) / σ, LN(x) = γ ⊙ n + β, and therefore

        W·LN(x) + b  =  (W·diag(γ))·n + (W·β + b)

    The mean over positions commutes with both sides. Each new number is rounded once: products of
    float32 round like that by themselves, and the sums of W·β are formed in float64.

    Requires: γ (and β) constant; every consumer a Gemm (transB = 1, alpha = beta = 1) on the
    LayerNorm as first input, with a weight of its own, perhaps behind Reshape and ReduceMean that treat every channel alike, as
    the mean over positions before the classifier does. (Zeros that pad such a mean do not commute with β.)
    Ensures: γ is a shared vector of ones, β is gone.
    """

    def call(self, model: ir.Model) -> PassResult:
        changed = False
        for node in model.graph:
            scale = _constant(node.inputs[1]) if node.op_type == "LayerNormalization" else None
            if scale is not None and (gemms := _gemms_behind(node.outputs[0], scale.size)):
                changed |= self._fold(model.graph, node, gemms)
        return PassResult(model, modified=changed)

    @staticmethod
    def _fold(graph: ir.Graph, norm: ir.Node, gemms: list[ir.Node]) -> bool:
        gamma = _constant(norm.inputs[1])
        beta = _constant(norm.inputs[2]) if len(norm.inputs) > 2 else None
        weights = [_constant(gemm.inputs[1]) for gemm in gemms]
        if gamma is None or any(w is None for w in weights) or (len(norm.inputs) > 2 and beta is None):
            return False
        if beta is None and (gamma == 1).all():
            return False
        for gemm, weight in zip(gemms, weights, strict=True):
            assert weight is not None and gemm.inputs[1] is not None
            if beta is not None:
                bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
                old = 0.0 if bias is None else _constant(bias)
                if old is None:
                    return False
                name = str(gemm.inputs[1].name).removesuffix(".weight") + ".bias"
                folded = _initializer(graph, name, (weight.astype(np.float64) @ beta + old).astype(np.float32))
                gemm.resize_inputs(3)
                gemm.replace_input_with(2, folded)
            folded = _initializer(graph, str(gemm.inputs[1].name), weight * gamma)
            gemm.replace_input_with(1, folded)
        norm.replace_input_with(1, _ones(graph, gamma.size))
        norm.resize_inputs(2)
        return True


def fold(model: ir.Model) -> ir.Model:
    """``model`` after all passes, without the initializers that they left unused."""
    model = FoldLayerNormAffineIntoGemm()(model).model
    for name in [n for n, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]
    return model


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

    weight = gemm.inputs[1]
    scales = number("alpha", 1), number("beta", 1)
    own = weight is not None and len(weight.uses()) == 1
    return own and scales == (1, 1) and number("transA", 0) == 0 and number("transB", 0) == 1


def _regroups_positions(node: ir.Node, channels: int) -> bool:
    """Whether ``node`` is a Reshape that leaves channels last and whole."""
    if node.op_type != "Reshape":
        return False
    shape = _constant(node.inputs[1])
    if shape is None:  # one computed for dynamic sizes; it comes from the map itself
        return node.inputs[1] is not None and str(node.inputs[1].name).endswith("/map_shape")
    return shape.size > 1 and int(shape[-1]) == channels


def _averages_positions(node: ir.Node) -> bool:
    """Whether ``node`` is a mean over other axes than the last, of a map whose rank the Reshape before it tells."""
    source = node.inputs[0].producer() if node.op_type == "ReduceMean" and node.inputs[0] is not None else None
    if source is None or source.op_type != "Reshape":
        return False
    axes = _constant(node.inputs[1]) if len(node.inputs) > 1 else None
    shape = _constant(source.inputs[1])
    return axes is not None and shape is not None and all(0 <= axis < shape.size - 1 for axis in axes.tolist())


def _constant(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """An initializer called ``name``, in the place of one that may be there."""
    if old := graph.initializers.get(name):
        old.name = f"{name}.unfolded"
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _ones(graph: ir.Graph, channels: int) -> ir.Value:
    name = f"ones{channels}"
    return graph.initializers.get(name) or _initializer(graph, name, np.ones(channels, np.float32))
