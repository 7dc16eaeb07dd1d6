"""Matrices as int8 with a scale a row: the nearest to the float32 ones, restored where they are read, and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from helpers.support import random_model, small_spec, v2_spec, weights_of
from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.graph.builder import constant_of, set_array
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes.int8_storage import StoreInt8
from s2mlp_deploy.passes.optimize import optimize
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.schema.spec import Spec


def emitted(spec: Spec, weights: dict[str, np.ndarray]) -> ir.Model:
    family = family_of(spec)
    return optimize(family.emit(spec, weights, LOWERINGS["gather"], Axes(None, spec.image_size)))


@pytest.fixture(scope="module")
def float32() -> ir.Model:
    spec = small_spec(depth=1)
    return emitted(spec, weights_of(random_model(spec)))


def run(model: ir.Model) -> np.ndarray:
    images = np.random.default_rng(0).standard_normal((2, 3, 20, 28)).astype(np.float32)
    return ReferenceEvaluator(ir.to_proto(model)).run(None, {"input": images})[0]


def test_every_product_reads_bytes_and_the_numbers_stay(float32: ir.Model) -> None:
    stored = run_passes(float32, StoreInt8())
    products = [node for node in stored.graph if node.op_type == "Gemm"]
    assert len(products) == 5 and {node.inputs[1].producer().op_type for node in products} == {"DequantizeLinear"}
    assert [node.op_type for node in stored.graph if node.op_type != "DequantizeLinear"] == [
        node.op_type for node in float32.graph
    ]
    for node in products:
        bytes_, scales = (constant_of(value) for value in node.inputs[1].producer().inputs)
        assert bytes_.dtype == np.int8 and np.abs(bytes_).max() == 127 and scales.shape == (len(bytes_),)
    assert 1e-4 < compare(run(stored), run(float32)).relative_l2 < 0.02


def test_a_row_of_zeros_stays_zero(float32: ir.Model) -> None:
    model = float32.clone()
    value = model.graph.initializers["head.fc.weight"]
    set_array(value, constant_of(value) * (np.arange(7) != 3).astype(np.float32)[:, None])
    assert np.isfinite(run(run_passes(model, StoreInt8()))).all()


def test_products_without_a_bias_are_stored_too() -> None:
    spec = v2_spec("one stage")
    stored = run_passes(emitted(spec, weights_of(random_model(spec))), StoreInt8())
    read = [node.inputs[1].producer() for node in stored.graph if node.op_type == "Gemm"]
    assert len(read) == 13 and all(node is not None for node in read)


def faulty(fault: Callable[[ir.Graph], None]) -> StoreInt8:
    """The pass, and a fault in what it makes."""

    class Faulty(StoreInt8):
        def rewrite(self, graph: ir.Graph) -> None:
            super().rewrite(graph)
            fault(graph)

    return Faulty()


def one_step_off(graph: ir.Graph) -> None:
    value = graph.initializers["stage0/block00/fc3/weight_q"]
    array = constant_of(value).copy()
    array[2, 3] += 1 if array[2, 3] < 0 else -1
    set_array(value, array)


def another_scale(graph: ir.Graph) -> None:
    value = graph.initializers["stage0/block00/fc3/weight_scale"]
    set_array(value, constant_of(value) * np.float32(1.05))


def one_operator_more(graph: ir.Graph) -> None:
    (gelu, *_) = (node for node in graph if node.op_type == "Gelu")
    twice = ir.node("Relu", [gelu.outputs[0]], outputs=[ir.Value(name="twice")], name="twice")
    graph.insert_after(gelu, twice)


def another_bias(graph: ir.Graph) -> None:
    value = graph.initializers["head.fc.bias"]
    set_array(value, constant_of(value) + np.float32(1e-3))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (one_step_off, "input 1 of stage0/block00/fc3 is another"),
        (another_scale, "input 1 of stage0/block00/fc3 is another"),
        (one_operator_more, "its operators are others"),
        (another_bias, "input 2 of logits is another"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_is_found(fault: Callable[[ir.Graph], None], said: str, float32: ir.Model) -> None:
    with pytest.raises(ParityError, match=said):
        run_passes(float32, faulty(fault))


def test_a_step_of_a_row_of_small_weights_is_found_beside_large_ones() -> None:
    spec = small_spec(depth=1)
    weights = weights_of(random_model(spec))
    weights["stages.0.blocks.0.fc3.weight"] = weights["stages.0.blocks.0.fc3.weight"].copy()
    weights["stages.0.blocks.0.fc3.weight"][2] *= np.float32(0.05)
    with pytest.raises(ParityError, match="input 1 of stage0/block00/fc3 is another"):
        run_passes(emitted(spec, weights), faulty(one_step_off))
