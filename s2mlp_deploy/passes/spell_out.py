"""Spell out LayerNormalization and Gelu in operators that have integer kernels everywhere."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import FunctionalPass, PassResult, PostconditionError

from s2mlp_deploy.graph.builder import GraphBuilder, array_of, remove_unused_initializers
from s2mlp_deploy.passes.preconditions import require_float32
from s2mlp_deploy.passes.recipe import Range

SLOPE, CUBE = 2 * sqrt(2 / pi), 2 * sqrt(2 / pi) * 0.044715
"""GELU(x) = x · sigmoid(SLOPE · x + CUBE · x³), within 5e-4 of the exact one: less than a step of 8 bits."""

LARGEST = 4.0
"""Beyond it GELU is x or 0 within 8 bits, so that x² need not be told apart from the square of this."""

SATURATED = {
    "/square": Range(0.0, LARGEST**2),
    "/weighted": Range(0.0, CUBE * LARGEST**2),
    "/slope": Range(0.0, SLOPE + CUBE * LARGEST**2),
    "/exponent": Range(-8.0, 8.0),
}
"""The ranges that values within a GELU need at most, by the ends of their names: a sigmoid is 0 or 1 beyond ±8."""


class SpellOut(FunctionalPass):
    """A copy of a graph without LayerNormalization and Gelu.

    LayerNormalization becomes (x − μ) · (σ² + ε)^−½, and γ and β where it has them; Gelu the formula of :data:`SLOPE`.
    Values keep their names, and those within are called after them.

    Requires: a float32 graph whose norms are along the last axis and have one output.
    Ensures: neither operator is left.
    """

    def requires(self, model: ir.Model) -> None:
        """The graph is float32."""
        require_float32(model)

    def call(self, model: ir.Model) -> PassResult:
        copy = model.clone()
        for node in list(copy.graph):
            if node.op_type in _SPELT:
                _replace(copy.graph, node)
        remove_unused_initializers(copy.graph)
        return PassResult(copy, modified=True)

    def ensures(self, model: ir.Model) -> None:
        """Neither operator is left."""
        if left := [str(node.name) for node in model.graph if node.op_type in _SPELT]:
            raise PostconditionError(f"{', '.join(left[:4])} is not spelt out")


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    old = node.outputs[0]
    name, out = str(old.name), GraphBuilder()
    made = _SPELT[node.op_type](out, node, name)
    made.type, made.shape = old.type, old.shape
    graph.insert_before(node, out.nodes)
    for value in out.initializers.values():
        if value.name not in graph.initializers:
            graph.register_initializer(value)
        else:
            value.replace_all_uses_with(graph.initializers[str(value.name)])
    old.replace_all_uses_with(made, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _layer_norm(out: GraphBuilder, node: ir.Node, name: str) -> ir.Value:
    x, axis = node.inputs[0], out.integers("last_axis", -1)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    mean = out.op("ReduceMean", [x, axis], f"{name}/mean", keepdims=1)
    centred = out.op("Sub", [x, mean], f"{name}/centred")
    squares = out.op("Mul", [centred, centred], f"{name}/squares")
    variance = out.op("ReduceMean", [squares, axis], f"{name}/variance", keepdims=1)
    guarded = out.op("Add", [variance, _number(out, f"epsilon{epsilon}", epsilon)], f"{name}/guarded")
    inverse = out.op("Pow", [guarded, _number(out, "inverse_root", -0.5)], f"{name}/inverse")
    steps = [("Mul", inverse)]
    for op_type, value in zip(("Mul", "Add"), node.inputs[1:], strict=False):
        array = array_of(value)
        if value is not None and (array is None or (array != (op_type == "Mul")).any()):
            steps.append((op_type, value))
    made = centred
    for i, (op_type, value) in enumerate(steps, start=1):
        made = out.op(op_type, [made, value], name if i == len(steps) else f"{name}/step{i}")
    return made


def _gelu(out: GraphBuilder, node: ir.Node, name: str) -> ir.Value:
    x = node.inputs[0]
    square = out.op("Mul", [x, x], f"{name}/square")
    weighted = out.op("Mul", [square, _number(out, "gelu_cube", CUBE)], f"{name}/weighted")
    slope = out.op("Add", [weighted, _number(out, "gelu_slope", SLOPE)], f"{name}/slope")
    exponent = out.op("Mul", [x, slope], f"{name}/exponent")
    share = out.op("Sigmoid", [exponent], f"{name}/share")
    return out.op("Mul", [x, share], name)


def _number(out: GraphBuilder, name: str, number: float) -> ir.Value:
    return out.constant(name, np.array([number], np.float32))


_SPELT = {"LayerNormalization": _layer_norm, "Gelu": _gelu}
