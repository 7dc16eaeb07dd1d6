"""Passes that round to a narrower float type: what they require and ensure, and the types at the border."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from helpers.support import random_model, small_spec, weights_of
from s2mlp_deploy.errors import InternalError, ParityError
from s2mlp_deploy.graph.builder import constant_of, set_array
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes.bfloat16 import ToBfloat16
from s2mlp_deploy.passes.float16 import ToFloat16
from s2mlp_deploy.passes.float16_storage import StoreFloat16, matrices
from s2mlp_deploy.passes.io_type import CastIo
from s2mlp_deploy.passes.precision_pass import RoundingPass
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.pipeline.lower import lower

KINDS = (ToFloat16, StoreFloat16, ToBfloat16)
WEIGHT = "stage0.blocks.0.fc3.weight"


@pytest.fixture(scope="module")
def float32() -> ir.Model:
    spec = small_spec(depth=1)
    return lower(spec, weights_of(random_model(spec)), LOWERINGS["gather"], Axes(None, spec.image_size)).model


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_is_rounded_once_and_the_original_stays(kind: type[RoundingPass], float32: ir.Model) -> None:
    before = ir.to_proto(float32).SerializeToString(deterministic=True)
    rounded = run_passes(float32, kind())
    assert ir.to_proto(float32).SerializeToString(deterministic=True) == before
    with pytest.raises(InternalError, match="and the pass takes a float32 graph"):
        run_passes(rounded, kind())


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_with_two_outputs_is_refused(kind: type[RoundingPass], float32: ir.Model) -> None:
    model = float32.clone()
    model.graph.outputs.append(model.graph.node(0).outputs[0])
    with pytest.raises(InternalError, match="1 inputs and 2 outputs: expected one of each"):
        run_passes(model, kind())


def one_weight_off(graph: ir.Graph) -> None:
    value = graph.initializers[WEIGHT]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[2, 3] += array.dtype.type(0.01)
    set_array(value, array, value.const_value.dtype)


def one_weight_the_second_nearest(graph: ir.Graph) -> None:
    value = graph.initializers[WEIGHT]
    array = constant_of(value).copy()
    array.view(np.uint16)[2, 3] += 1
    assert value.const_value is not None
    set_array(value, array, value.const_value.dtype)


def one_operator_more(graph: ir.Graph) -> None:
    (gelu, *_) = (node for node in graph if node.op_type == "Gelu")
    twice = ir.node("Relu", [gelu.outputs[0]], outputs=[ir.Value(name="twice")], name="twice")
    uses = list(gelu.outputs[0].uses())
    graph.insert_after(gelu, twice)
    for node, index in uses:
        if node is not twice:
            node.replace_input_with(index, twice.outputs[0])


def one_attribute_off(graph: ir.Graph) -> None:
    next(node for node in graph if node.op_type == "Gelu").attributes["approximate"] = ir.AttrString(
        "approximate", "tanh"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (one_weight_off, "input 1 of stage0/block00/fc3 is another"),
        (one_weight_the_second_nearest, "input 1 of stage0/block00/fc3 is another"),
        (one_operator_more, "its operators are others"),
        (one_attribute_off, "its operators are others"),
    ],
)
def test_a_result_that_differs_by_more_than_rounding_is_caught(
    kind: type[RoundingPass], damage: object, message: str, float32: ir.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = kind.rewrite

    def damaged(self: RoundingPass, graph: ir.Graph) -> None:
        rewrite(self, graph)
        damage(graph)  # type: ignore[operator]

    monkeypatch.setattr(kind, "rewrite", damaged)
    with pytest.raises(ParityError, match=f"nothing was published: {message}"):
        run_passes(float32, kind())


def test_a_matrix_that_two_nodes_read_is_refused_for_storage(float32: ir.Model) -> None:
    model = float32.clone()
    model.graph.append(ir.node("Neg", [model.graph.initializers[WEIGHT]], outputs=[ir.Value(name="n")], name="n"))
    with pytest.raises(InternalError, match=f"not one node alone reads {WEIGHT}"):
        run_passes(model, StoreFloat16())


def test_the_shifts_constants_and_ones_are_no_matrices() -> None:
    spec = small_spec(depth=1)
    model = lower(spec, weights_of(random_model(spec)), LOWERINGS["conv"], Axes(None, spec.image_size)).model
    kernels = [name for name in model.graph.initializers if name.endswith("shift_kernels")]
    found = matrices(model.graph)
    assert kernels and not {*kernels, "ones13"} & found.keys()
    assert len(found) == 4 * spec.depth + 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT, ir.DataType.FLOAT16])
def test_input_and_logits_have_the_type_asked_for_and_their_names(
    kind: type[RoundingPass], dtype: ir.DataType, float32: ir.Model
) -> None:
    model = run_passes(float32, kind(), CastIo(dtype))
    (images,), (logits,) = model.graph.inputs, model.graph.outputs
    assert (images.name, images.dtype, logits.name, logits.dtype) == ("input", dtype, "logits", dtype)
    assert not CastIo(dtype)(model).modified


def test_a_cast_that_is_forgotten_is_caught(float32: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2mlp_deploy.passes.io_type.cast_output", lambda *_: None)
    with pytest.raises(ParityError, match="logits is FLOAT: expected FLOAT16"):
        run_passes(float32.clone(), CastIo(ir.DataType.FLOAT16))


def test_a_rounded_weight_is_the_nearest(float32: ir.Model) -> None:
    want = float32.graph.initializers[WEIGHT].const_value
    got = run_passes(float32, StoreFloat16()).graph.initializers[WEIGHT].const_value
    assert want is not None and got is not None
    np.testing.assert_array_equal(got.numpy(), want.numpy().astype(np.float16))
