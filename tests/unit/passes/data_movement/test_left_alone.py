"""Nodes that may move data and stay as they are, each with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from helpers.moving_graphs import Moving, numbered, operators, outputs, same_bits
from s2mlp_deploy.passes.data_movement import repair

SHAPE = (4, 6)


def reason(graph: Moving, *results: ir.Value) -> str:
    """The one reason for which a node of the graph is left alone."""
    (alone,) = repair(graph.model(*results)).left_alone
    return alone.reason


def there_and_back(graph: Moving, value: ir.Value) -> ir.Value:
    """A part of a graph that a repair takes out."""
    there = graph.add("Transpose", value, perm=[1, 0])
    return graph.add("Transpose", there, perm=[1, 0])  # type: ignore[no-any-return]


def test_a_custom_operator() -> None:
    graph = Moving()
    value = there_and_back(graph, graph.input(SHAPE))
    value = graph.add("Warp", graph.add("Neg", value), domain="ai.example")
    model = graph.model(graph.add("Neg", value))
    model.graph.opset_imports["ai.example"] = 1
    result = repair(model)
    assert [a.reason for a in result.left_alone] == ["Warp is a custom operator, of ai.example"]
    assert operators(result.model) == {"Neg": 2, "Warp": 1}


def test_a_call_of_the_models_own_function() -> None:
    graph = Moving()
    value = graph.add("Twice", graph.input(SHAPE), domain="local")
    model = graph.model(there_and_back(graph, value))
    inner = ir.Value(name="a")
    double = ir.node("Add", [inner, inner])
    body = ir.Graph([inner], list(double.outputs), nodes=[double], opset_imports={"": 17})
    function = ir.Function("local", "Twice", graph=body, attributes=[])
    model.functions[function.identifier()] = function
    model.graph.opset_imports["local"] = 1
    result = repair(model)
    assert "own function Twice" in result.left_alone[0].reason and function.identifier() in result.model.functions


def test_a_subgraph_keeps_what_it_reads_from_outside() -> None:
    graph = Moving()
    x = graph.input(SHAPE)
    turned = graph.add(
        "Transpose", graph.add("Transpose", graph.add("Transpose", x, perm=[1, 0]), perm=[1, 0]), perm=[1, 0]
    )
    branches = []
    for op_type in ("Neg", "Abs"):
        node = ir.node(op_type, [turned])
        node.outputs[0].name = op_type
        branches.append(ir.Graph([], list(node.outputs), nodes=[node], name=op_type))
    condition = graph.constant(np.array(True))
    value = graph.add("If", condition, then_branch=branches[0], else_branch=branches[1])
    model = graph.model(value)
    result = repair(model)
    feeds = {"x": numbered(SHAPE)}
    assert [a.reason for a in result.left_alone] == ["If holds a subgraph"]
    assert operators(result.model) == {"Transpose": 1, "If": 1}
    assert same_bits(outputs(model, feeds), outputs(result.model, feeds))


def test_indices_that_are_computed_from_the_input() -> None:
    graph = Moving()
    x = graph.input(SHAPE)
    indices = graph.add("Cast", graph.add("ReduceMax", x, axes=[1], keepdims=0), to=7)
    assert "depend on the input's numbers" in reason(graph, graph.add("Gather", x, indices, axis=1))


@pytest.mark.parametrize("reduction", ["add", "mul"])
def test_a_scatter_that_computes(reduction: str) -> None:
    graph = Moving()
    x = graph.input(SHAPE)
    value = graph.add(
        "ScatterND",
        x,
        graph.constant(np.array([[0]])),
        graph.constant(np.ones((1, 6), np.float32)),
        reduction=reduction,
    )
    assert "adds to" in reason(graph, value)


def test_an_element_that_is_written_twice() -> None:
    graph = Moving()
    x = graph.input(SHAPE)
    updates = graph.add("Slice", x, graph.ints(0), graph.ints(2), graph.ints(0))
    assert "twice" in reason(graph, graph.add("ScatterND", x, graph.constant(np.array([[3], [3]])), updates))


def test_an_element_that_is_written_twice_with_the_same_source_is_fine() -> None:
    graph = Moving()
    x = graph.input(SHAPE)
    updates = graph.add("Gather", x, graph.ints(1, 1), axis=0)
    model = graph.model(graph.add("Neg", graph.add("ScatterND", x, graph.constant(np.array([[3], [3]])), updates)))
    result = repair(model)
    feeds = {"x": numbered(SHAPE)}
    assert result.left_alone == () and operators(result.model)["ScatterND"] == 0
    assert same_bits(outputs(model, feeds), outputs(result.model, feeds))


def test_an_input_of_unknown_shape() -> None:
    graph = Moving()
    x = graph.input(SHAPE)
    x.shape = None
    assert "shape of its input is not known" in reason(graph, graph.add("Transpose", x, perm=[1, 0]))


def test_a_scatter_whose_place_depends_on_a_free_size() -> None:
    graph = Moving()
    x = graph.input((2, "length"))
    half = graph.add("Div", graph.add("Slice", graph.add("Shape", x), graph.ints(1), graph.ints(2)), graph.ints(2))
    indices = graph.add("Unsqueeze", graph.add("Concat", graph.ints(0), half, axis=0), graph.ints(0))
    value = graph.add("ScatterND", x, indices, graph.constant(np.ones(1, np.float32)))
    result = repair(graph.model(graph.add("Neg", value)))
    assert [a.reason for a in result.left_alone] == ["no operators move its elements alike at every size of the inputs"]


def test_weights_are_neither_read_nor_listed(tmp_path: Path) -> None:
    graph = Moving()
    x = there_and_back(graph, graph.input(SHAPE))
    weight = graph.constant(np.ones((6, 1000), np.float32))
    weight.const_value = ir.ExternalTensor(
        "missing", 0, 24000, ir.DataType.FLOAT, shape=ir.Shape((6, 1000)), name="w", base_dir=tmp_path
    )
    turned = graph.add("Transpose", graph.add("Reshape", weight, graph.ints(1000, 6)), perm=[1, 0])
    result = repair(graph.model(graph.add("MatMul", x, turned)))
    assert result.left_alone == () and operators(result.model) == {"Reshape": 1, "Transpose": 1, "MatMul": 1}
