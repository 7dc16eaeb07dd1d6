"""Move biases out of matrix products into the operators behind them, which ONNX Runtime computes in one kernel each on CUDA.

Its CUDA provider runs a Gemm with a bias as two products, ones times the bias and the factors. Without one it is a single product.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from s2mlp_deploy.graph.builder import array_of

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


class FuseBiases(InPlacePass):
    """Write biases, residual sums and norms as operators of ONNX Runtime's own.

    With p = x·Wᵀ,

        GELU(p + b)                   =  BiasGelu(p, b)
        s = r + (p + b), LayerNorm(s) =  SkipLayerNormalization(p, r, γ, β, b), whose fourth output is s

    Values keep their names, so that layers can be compared.

    Matches: a Gemm with a bias of one axis and no factors, which only the operator behind it reads; an exact Gelu; a
    LayerNormalization over the last axis whose input is the sum of two lists of tokens (positions, channels), one of which is a Gemm's.
    Requires: shapes are known. Ensures: nothing is left that matches.
    """

    def call(self, model: ir.Model) -> PassResult:
        modified = False
        for node in list(model.graph):
            modified = _fuse_gelu(model.graph, node) or _fuse_norm(model.graph, node) or modified
        if modified:
            model.graph.opset_imports[MICROSOFT] = 1
        return PassResult(model, modified=modified)

    def ensures(self, model: ir.Model) -> None:
        """Nothing is left that matches."""
        if left := [str(node.name) for node in model.graph if _product_of_gelu(node) or _product_of_norm(node)]:
            raise PostconditionError(f"{', '.join(left[:4])} is not fused")


def _fuse_gelu(graph: ir.Graph, node: ir.Node) -> bool:
    gemm = _product_of_gelu(node)
    if gemm is None:
        return False
    fused = ir.node("BiasGelu", [gemm.outputs[0], _take_bias(gemm)], domain=MICROSOFT, name=node.name)
    ir.convenience.replace_nodes_and_values(graph, node, [node], [fused], node.outputs, fused.outputs)
    return True


def _fuse_norm(graph: ir.Graph, node: ir.Node) -> bool:
    gemm = _product_of_norm(node)
    if gemm is None:
        return False
    scale, *shift = node.inputs[1:]
    add = node.inputs[0].producer()  # type: ignore[union-attr]
    assert add is not None
    (skip,) = (value for value in add.inputs if value is not gemm.outputs[0])
    total = add.outputs[0]
    is_read = len(total.uses()) > 1 or total.is_graph_output()
    fused = ir.node(
        "SkipLayerNormalization",
        [gemm.outputs[0], skip, scale, shift[0] if shift else None, _take_bias(gemm)],
        {"epsilon": node.attributes.get_float("epsilon", 1e-5)},
        domain=MICROSOFT,
        name=node.name,
        outputs=[ir.Value(), *((ir.Value(name=""), ir.Value(name=""), ir.Value()) if is_read else ())],
    )
    old, new = [node.outputs[0]], [fused.outputs[0]]
    if is_read:
        old, new = [*old, total], [*new, fused.outputs[3]]
    ir.convenience.replace_nodes_and_values(graph, add, [node, add], [fused], old, new)
    return True


def _take_bias(gemm: ir.Node) -> ir.Value | None:
    """The bias of ``gemm``, which has none from now on."""
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    gemm.resize_inputs(2)
    return bias


def _product_of_gelu(node: ir.Node) -> ir.Node | None:
    """The Gemm whose bias the Gelu ``node`` can add; None where there is none."""
    if node.op_type != "Gelu" or node.attributes.get_string("approximate", "none") != "none":
        return None
    gemm = _product(node.inputs[0])
    return gemm if gemm is not None and len(gemm.inputs) > 2 else None


def _product_of_norm(node: ir.Node) -> ir.Node | None:
    """The Gemm behind whose residual sum the LayerNormalization ``node`` stands; None where there is none."""
    if node.op_type != "LayerNormalization" or node.domain or len(node.outputs) > 1:
        return None
    total = node.inputs[0]
    add = total.producer() if total is not None else None
    if add is None or add.op_type != "Add" or node.attributes.get_int("axis", -1) not in (-1, 1):
        return None
    if not _is_of_tokens(*add.inputs):
        return None
    return next((gemm for value in add.inputs if (gemm := _product(value))), None)


def _is_of_tokens(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Whether both are tokens (positions, channels), none of which a sum of them repeats.

    Two numbers of positions that depend on the batch are taken for equal: ONNX Runtime refuses others.
    """
    if one is None or other is None or one.shape is None or other.shape is None:
        return False
    if not len(one.shape) == len(other.shape) == 2 or one.shape[1] != other.shape[1]:
        return False
    positions = one.shape[0], other.shape[0]
    return positions[0] == positions[1] or not any(isinstance(n, int) for n in positions)


def _product(value: ir.Value | None) -> ir.Node | None:
    """The Gemm without factors that makes ``value`` for one reader, and whose bias, if any, is one for each output channel."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != "Gemm" or len(value.uses()) != 1 or value.is_graph_output():
        return None
    plain = all(node.attributes.get_float(name, 1.0) == 1 for name in ("alpha", "beta"))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    array = array_of(bias)
    fits = bias is None or (array is not None and value.shape is not None and array.shape == (value.shape[-1],))
    return node if plain and fits else None
