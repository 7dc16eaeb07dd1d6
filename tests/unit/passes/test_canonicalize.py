"""The form in which graphs are written: sorted, named, and free of what tools leave."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes import PostconditionError

from helpers.support import pyramid_spec, random_model, weights_of
from s2mlp_deploy import __version__
from s2mlp_deploy.graph.builder import GraphBuilder, initializer
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes.canonicalize import Canonicalize
from s2mlp_deploy.pipeline.lower import lower


def sum_and_negation() -> ir.Model:
    """Input ``x`` (3), output ``y`` = −(x + 1), written as other tools would."""
    builder = GraphBuilder()
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([3]))
    total = builder.op("Add", [x, builder.constant("one", np.ones(3, np.float32))], "sum")
    builder.op("Abs", [total], "unread")
    builder.constant("left over", np.zeros(2, np.float32))
    y = builder.op("Neg", [total], "y")
    y.type, y.shape = x.type, x.shape
    model = builder.model([x], [y], "g")
    model.producer_name = "another tool"
    model.graph.doc_string = "made on a Friday"
    for node in model.graph:
        node.doc_string, node.metadata_props["host"] = "line 7", "laptop"
    nodes = list(model.graph)
    model.graph.remove(nodes)
    model.graph.extend(reversed(nodes))
    nodes[0].name = ""
    return model


def test_what_is_not_of_the_network_is_gone_and_the_rest_is_in_order() -> None:
    model = Canonicalize()(sum_and_negation()).model
    assert [node.op_type for node in model.graph] == ["Add", "Neg"]
    assert list(model.graph.initializers) == ["one"]
    assert all(node.name and not node.metadata_props and not node.doc_string for node in model.graph)
    assert not model.graph.doc_string
    assert (model.producer_name, model.producer_version) == ("s2mlp-deploy", __version__)
    onnx_bytes = [ir.to_proto(Canonicalize()(sum_and_negation()).model).SerializeToString() for _ in range(2)]
    assert onnx_bytes[0] == onnx_bytes[1] == ir.to_proto(model).SerializeToString()


@pytest.mark.parametrize("size", [None, (40, 40)])
def test_a_graph_in_that_form_stays_as_it_is(size: tuple[int, int] | None) -> None:
    spec = pyramid_spec()
    axes = Axes(None, size and spec.image_size)
    model = lower(spec, weights_of(random_model(spec)), LOWERINGS["slice"], axes).model
    before = ir.to_proto(model).SerializeToString()
    result = Canonicalize()(model)
    assert not result.modified and ir.to_proto(result.model).SerializeToString() == before


def duplicate_name(model: ir.Model) -> None:
    model.graph.node(1).name = model.graph.node(0).name


def unread_initializer(model: ir.Model) -> None:
    model.graph.register_initializer(initializer("extra", np.zeros(1, np.float32)))


def reversed_nodes(model: ir.Model) -> None:
    nodes = list(model.graph)
    model.graph.remove(nodes)
    model.graph.extend(reversed(nodes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (duplicate_name, "nodes share a name: 'sum'"),
        (unread_initializer, "no node reads extra"),
        (reversed_nodes, "node y reads sum, which is computed after it"),
    ],
)
def test_each_promise_is_checked(damage: object, message: str) -> None:
    model = Canonicalize()(sum_and_negation()).model
    model.graph.node(0).name = "sum"
    Canonicalize().ensures(model)
    damage(model)  # type: ignore[operator]
    with pytest.raises(PostconditionError, match=message):
        Canonicalize().ensures(model)
