"""The graph for ONNX Runtime's CUDA provider: what its two passes match, the numbers after them, and what they leave alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from helpers.support import random_model, small_spec, weights_of
from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes import fuse_biases
from s2mlp_deploy.passes.fuse_biases import FuseBiases
from s2mlp_deploy.passes.patch_products import PatchesAsProducts
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.schema.array import Array

SPEC = small_spec(channels=8)
IMAGES = np.random.default_rng(0).standard_normal((3, SPEC.in_channels, *SPEC.image_size), np.float32)


@pytest.fixture(scope="module")
def float32() -> ir.Model:
    return lower(SPEC, weights_of(random_model(SPEC)), LOWERINGS["gather"], Axes(None, SPEC.image_size)).model


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def run(model: ir.Model, feeds: Array = IMAGES, *more: str) -> list[Array]:
    """The output, and the values called ``more``."""
    proto = ir.to_proto(model)
    for name in more:
        proto.graph.output.add(name=name)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return list(session.run(None, {session.get_inputs()[0].name: feeds}))


def test_products_within_the_blocks_have_no_bias_and_norms_behind_a_sum_compute_it(
    float32: ir.Model,
) -> None:
    before, model = operators(float32), run_passes(float32.clone(), PatchesAsProducts(), FuseBiases())
    after = operators(model)
    assert before["Gelu"] == after["BiasGelu"] == 4 and before["LayerNormalization"] == before["Add"] == 4
    assert after["SkipLayerNormalization"] == 3 and after["LayerNormalization"] == after["Add"] == 1
    assert after["Gelu"] == after["Conv"] == 0 and after["Gemm"] == before["Gemm"] + 1
    assert [len(node.inputs) for node in model.graph if node.op_type == "Gemm"] == [3, *[2] * 7, 3, 3]
    moved = 1  # Conv, Transpose and Reshape are Reshape, Transpose, Reshape and Gemm
    assert sum(after.values()) == sum(before.values()) - 3 + moved
    assert model.graph.opset_imports["com.microsoft"] == 1


def test_logits_and_the_values_of_layers_are_those_of_before(float32: ir.Model) -> None:
    layers = ("stage0/embedding", "stage0/block00", "stage0/block00/add1", "stage0/block00/gelu2")
    model = run_passes(float32.clone(), PatchesAsProducts(), FuseBiases())
    for got, wanted in zip(run(model, IMAGES, *layers), run(float32, IMAGES, *layers), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)


def residual(change: Callable[[GraphBuilder, ir.Value, ir.Value], ir.Value]) -> ir.Model:
    """Tokens (batch, 4), their product plus a bias, what ``change`` makes of both, and a LayerNormalization."""
    out = GraphBuilder()
    tokens = ir.Value(name="tokens", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 4]))
    rng = np.random.default_rng(1)
    weight = out.constant("weight", rng.standard_normal((4, 4), np.float32))
    product = out.op("Gemm", [tokens, weight, out.constant("bias", rng.standard_normal(4, np.float32))], "fc", transB=1)
    total = change(out, tokens, product)
    result = out.op("LayerNormalization", [total, out.constant("ones", np.ones(4, np.float32))], "norm", axis=-1)
    for node in out.nodes:
        node.outputs[0].type, node.outputs[0].shape = tokens.type, ir.Shape(["batch", 4])
    return out.model([tokens], [result], "residual")


TOKENS = np.random.default_rng(2).standard_normal((5, 4)).astype(np.float32)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_two_values_of_a_sum_may_stand_in_any_order(swapped: bool) -> None:
    model = residual(lambda out, x, y: out.op("Add", [y, x] if swapped else [x, y], "total"))
    fused = run_passes(model.clone(), FuseBiases())
    assert operators(fused) == {"Gemm": 1, "SkipLayerNormalization": 1}
    np.testing.assert_allclose(run(fused, TOKENS)[0], run(model, TOKENS)[0], rtol=1e-5, atol=1e-6)


def of_another_shape(out: GraphBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return out.op("Add", [out.constant("row", np.ones((1, 4), np.float32)), y], "total")


def read_twice(out: GraphBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return out.op("Add", [out.op("Mul", [x, y], "other"), y], "total")


def with_a_factor(out: GraphBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    out.nodes[0].attributes["beta"] = ir.AttrFloat32("beta", 2.0)
    return out.op("Add", [x, y], "total")


@pytest.mark.parametrize("change", [of_another_shape, read_twice, with_a_factor])
def test_a_near_miss_of_a_residual_sum_is_left_alone(change: Callable[..., ir.Value]) -> None:
    model = residual(change)
    assert not FuseBiases()(model).modified and "com.microsoft" not in model.graph.opset_imports
    run(model, TOKENS)


def test_a_gelu_by_tanh_is_left_alone() -> None:
    def by_tanh(out: GraphBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        return out.op("Gelu", [y], "gelu", approximate="tanh")

    assert not FuseBiases()(residual(by_tanh)).modified


@pytest.mark.parametrize(
    "change",
    [
        {"strides": (2, 2)},
        {"pads": (1, 1, 0, 0)},
        {"dilations": (2, 2)},
    ],
)
def test_a_convolution_of_overlapping_or_padded_patches_stays_one(
    change: dict[str, tuple[int, ...]], float32: ir.Model
) -> None:
    model = float32.clone()
    (conv,) = (node for node in model.graph if node.op_type == "Conv")
    for name, values in change.items():
        conv.attributes[name] = ir.AttrInt64s(name, values)
    assert not PatchesAsProducts()(model).modified


def test_images_of_any_size_and_sizes_that_patches_do_not_fill_keep_their_convolution(float32: ir.Model) -> None:
    model = float32.clone()
    model.graph.inputs[0].shape = ir.Shape(["batch", 3, 21, 28])
    assert not PatchesAsProducts()(model).modified
    dynamic = lower(SPEC, weights_of(random_model(SPEC)), LOWERINGS["slice"], Axes(None, None)).model
    assert not PatchesAsProducts()(dynamic).modified


def test_a_bias_that_is_left_is_caught(float32: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse_biases, "_fuse_gelu", lambda graph, node: False)
    with pytest.raises(ParityError, match=r"gelu1, .* is not fused"):
        run_passes(float32.clone(), FuseBiases())
