"""FoldLayerNormAffineIntoGemm: the graph it makes, the numbers, and near-misses that it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from helpers.graph_run import run_graph
from helpers.support import random_model, small_spec, weights_of, with_biases
from s2mlp_deploy.errors import InternalError, ParityError
from s2mlp_deploy.families.s2mlp.emit import S2MLPEmitter
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec
from s2mlp_deploy.graph.builder import GraphBuilder, constant_of, set_array
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes import fold_layernorm
from s2mlp_deploy.passes.fold_layernorm import FoldLayerNormAffineIntoGemm
from s2mlp_deploy.passes.run_passes import run_passes

C, OUT = 6, 5
rng = np.random.default_rng(0)


def norm_and_gemm(
    *,
    beta: bool = True,
    bias: bool = True,
    trans_b: int = 1,
    alpha: float = 1.0,
    second_consumer: bool = False,
    shared_weight: bool = False,
    computed_gamma: bool = False,
    mean_over_channels: bool = False,
    joined_tokens: bool = False,
) -> ir.Model:
    """LayerNormalization → Gemm, or a graph that differs from it in one point."""
    rng = np.random.default_rng(1)
    out = GraphBuilder()
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["tokens", C]))
    gamma = out.constant("gamma", rng.standard_normal(C).astype(np.float32))
    if computed_gamma:
        gamma = out.op("Abs", [gamma], "computed")
    inputs = [x, gamma] + ([out.constant("beta", rng.standard_normal(C).astype(np.float32))] if beta else [])
    n = out.op("LayerNormalization", inputs, "norm", axis=-1, epsilon=1e-5)
    if mean_over_channels:
        n = out.op("Reshape", [n, out.integers("square", -1, C, C)], "maps")
        n = out.op("ReduceMean", [n, out.integers("channels", 2)], "mean", keepdims=0)
    width = 2 * C if joined_tokens else C
    if joined_tokens:
        n = out.op("Reshape", [n, out.integers("two", -1, width)], "joined")
    shape = (OUT, width) if trans_b else (width, OUT)
    w = out.constant("fc.weight", rng.standard_normal(shape).astype(np.float32))
    gemm_inputs = [n, w] + ([out.constant("fc.bias", rng.standard_normal(OUT).astype(np.float32))] if bias else [])
    y = out.op("Gemm", gemm_inputs, "fc", transB=trans_b, alpha=alpha)
    if shared_weight:
        y = out.op("Add", [y, out.op("Gemm", [x, w], "other", transB=trans_b)], "sum")
    if second_consumer:
        y = out.op("Add", [y, out.op("ReduceMax", [n], "max", keepdims=1)], "sum")
    y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["tokens", OUT])
    return out.model([x], [y], "g")


@pytest.mark.parametrize("beta", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_gamma_and_beta_move_into_the_gemm(beta: bool, bias: bool) -> None:
    x = rng.standard_normal((7, C)).astype(np.float32)
    before = run_graph(norm_and_gemm(beta=beta, bias=bias), x=x)
    model = run_passes(norm_and_gemm(beta=beta, bias=bias), FoldLayerNormAffineIntoGemm())
    norm = next(n for n in model.graph if n.op_type == "LayerNormalization")
    gemm = next(n for n in model.graph if n.op_type == "Gemm")
    assert len(norm.inputs) == 2
    assert (norm.inputs[1].const_value.numpy() == 1).all()
    assert len(gemm.inputs) == (3 if beta or bias else 2)
    assert set(model.graph.initializers) == {"fc.weight", f"ones{C}"} | ({"fc.bias"} if beta or bias else set())
    np.testing.assert_allclose(run_graph(model, x=x), before, rtol=0, atol=2e-6)


def test_sums_that_nearly_cancel_are_formed_in_float64() -> None:
    model = norm_and_gemm()
    initializers = model.graph.initializers
    large = np.float32(2**25)  # to which float32 cannot add 1
    set_array(initializers["beta"], np.ones(C, np.float32))
    set_array(initializers["fc.weight"], np.tile(np.float32([large, 1, 1, -large, 1, 1]), (OUT, 1)))
    set_array(initializers["fc.bias"], np.full(OUT, 0.5, np.float32))
    run_passes(model, FoldLayerNormAffineIntoGemm())
    assert constant_of(initializers["fc.bias"]).tolist() == [4.5] * OUT


@pytest.mark.parametrize(
    "near_miss",
    [
        {"trans_b": 0},
        {"alpha": 0.5},
        {"second_consumer": True},
        {"shared_weight": True},
        {"computed_gamma": True},
        {"mean_over_channels": True},
        {"joined_tokens": True},
    ],
    ids=lambda d: next(iter(d)),
)
def test_a_near_miss_is_left_alone(near_miss: dict[str, object]) -> None:
    model = norm_and_gemm(**near_miss)
    before = ir.to_proto(model).SerializeToString()
    result = FoldLayerNormAffineIntoGemm()(model)
    assert not result.modified
    assert ir.to_proto(result.model).SerializeToString() == before


def test_a_plain_norm_needs_no_folding() -> None:
    model = norm_and_gemm(beta=False)
    model.graph.initializers["gamma"].const_value = ir.Tensor(np.ones(C, np.float32), name="gamma")
    assert not FoldLayerNormAffineIntoGemm()(model).modified


@pytest.mark.parametrize(
    "spec",
    [
        small_spec(),
        replace(small_spec(), final_norm=True),
        with_biases(small_spec(), frozenset({"embedding", "norm1"})),
        with_biases(replace(small_spec(), final_norm=True), frozenset({"norm"})),
    ],
    ids=["all biases", "final norm", "few biases", "final norm, few biases"],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_every_norm_of_a_model_loses_its_affine_part_and_the_logits_stay(spec: S2MLPSpec, dynamic: bool) -> None:
    model = random_model(spec)
    axes = Axes(None, None if dynamic else spec.image_size)
    x = rng.standard_normal((2, 3, *spec.image_size)).astype(np.float32)
    plain = S2MLPEmitter.emit(spec, weights_of(model), LOWERINGS["slice"], axes)
    folded = run_passes(
        S2MLPEmitter.emit(spec, weights_of(model), LOWERINGS["slice"], axes), FoldLayerNormAffineIntoGemm()
    )
    norms = [n for n in folded.graph if n.op_type == "LayerNormalization"]
    assert len(norms) == 2 * spec.depth + spec.final_norm
    # The mean of a map of any size pads it, and what it averages then is not the norm's output alone.
    kept = {"head/norm"} if dynamic and spec.final_norm else set()
    assert {n.name for n in norms if len(n.inputs) > 2} <= kept
    assert {n.inputs[1].name for n in norms if n.name not in kept} == {"ones13"}
    assert {name.rsplit(".", 1)[0] for name in folded.graph.initializers if ".norm" in name} == {
        n.replace("/", ".") for n in kept
    }
    np.testing.assert_allclose(run_graph(folded, input=x), run_graph(plain, input=x), rtol=0, atol=2e-6)


def test_folding_does_not_write_into_the_checkpoints_weights() -> None:
    weights = weights_of(random_model(small_spec()))
    before = {name: array.copy() for name, array in weights.items()}
    run_passes(
        S2MLPEmitter.emit(small_spec(), weights, LOWERINGS["gather"], Axes(1, (20, 28))), FoldLayerNormAffineIntoGemm()
    )
    for name, array in weights.items():
        np.testing.assert_array_equal(array, before[name])


def test_a_shared_bias_is_left_alone() -> None:
    model = norm_and_gemm(second_consumer=False)
    (gemm,) = (n for n in model.graph if n.op_type == "Gemm")
    other = ir.node("Neg", [gemm.inputs[2]], outputs=[ir.Value(name="negated")], name="negated")
    model.graph.append(other)
    assert not FoldLayerNormAffineIntoGemm()(model).modified


def test_a_graph_that_is_not_float32_is_refused_before_anything_changes() -> None:
    model = norm_and_gemm()
    half = ir.Tensor(np.ones((OUT, C), np.float16), name="fc.weight")
    model.graph.initializers["fc.weight"].const_value = half
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(InternalError, match=r"fc\.weight is FLOAT16, and the pass takes a float32 graph"):
        run_passes(model, FoldLayerNormAffineIntoGemm())
    assert ir.to_proto(model).SerializeToString() == before


def test_a_fold_that_leaves_something_behind_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_layernorm, "_fold", lambda graph, norm, gemms: None)
    with pytest.raises(ParityError, match="nothing was published: γ or β is left in norm"):
        run_passes(norm_and_gemm(), FoldLayerNormAffineIntoGemm())
