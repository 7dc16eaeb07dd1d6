"""Graphs that are int8 throughout: norms and GELU spelt out, every value quantized, and nothing else changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import erf, sqrt

import numpy as np
import onnx_ir as ir
import pytest

from helpers.support import random_model, small_spec, v2_spec, weights_of
from s2mlp_deploy.errors import InternalError, ParityError
from s2mlp_deploy.families.mixer.spec import MixerSpec
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.graph.builder import constant_of, set_array
from s2mlp_deploy.graph.lowered import Axes, Lowered
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes.optimize import optimize
from s2mlp_deploy.passes.quantize_whole import QuantizeWhole, computed_values
from s2mlp_deploy.passes.recipe import RECIPES, Range
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.passes.spell_out import CUBE, SLOPE, SpellOut
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.shift import Shift
from s2mlp_deploy.schema.spec import Embedding, Spec

RECIPE = RECIPES["litert-micro"]
SPEC = small_spec(depth=1)
SPECS: dict[str, Spec] = {
    "S²-MLP": SPEC,
    "zeros at the border": replace(SPEC, shift=Shift(border="zero")),
    "norm after the mean": replace(SPEC, final_norm=True, norm_after_mean=True),
    "S²-MLPv2": v2_spec("one stage"),
    "MLP-Mixer": MixerSpec(Embedding((4, 4), (4, 4)), 14, 6, 26, 2, classes=7, image_size=(20, 28)),
}


def images(spec: Spec, seed: int = 0) -> Array:
    shape = (4, spec.in_channels, *spec.image_size)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def weights(spec: Spec) -> dict[str, Array]:
    if not isinstance(spec, MixerSpec):
        return weights_of(random_model(spec))
    rng = np.random.default_rng(0)
    return {n: rng.standard_normal(shape).astype(np.float32) / 4 for n, shape in spec.parameter_shapes().items()}


def spelt_out(spec: Spec, lowering: str = "slice", *, folded: bool = True) -> Lowered:
    axes = Axes(None, spec.image_size)
    graph = family_of(spec).emit(spec, weights(spec), LOWERINGS[lowering], axes)
    model = run_passes(optimize(graph) if folded else graph, SpellOut())
    return Lowered(model, spec, axes, lowering, "fp32")


def ranges_of(lowered: Lowered) -> dict[str, Range]:
    x, names = images(lowered.spec), computed_values(lowered.model)
    with scratch_session(lowered) as session:
        values = {"input": x, **session.trace(x, names[1:])}
    return {name: Range(float(v.min()), float(v.max())) for name, v in values.items()}


@pytest.mark.parametrize("folded", [True, False])
def test_a_graph_that_is_spelt_out_computes_the_same(folded: bool) -> None:
    """With γ and β in the norms, too, as where GELU is the same formula."""
    axes = Axes(None, SPEC.image_size)
    graph = family_of(SPEC).emit(SPEC, weights_of(random_model(SPEC)), LOWERINGS["gather"], axes)
    before = Lowered(optimize(graph) if folded else graph, SPEC, axes, "gather", "fp32")
    for node in before.model.graph:
        if node.op_type == "Gelu":
            node.attributes["approximate"] = ir.AttrString("approximate", "tanh")
    after = replace(before, model=run_passes(before.model, SpellOut()))
    with scratch_session(before) as one, scratch_session(after) as other:
        assert 0 < compare(other.run(images(SPEC)), one.run(images(SPEC))).relative_l2 < 2e-6
    assert not {"Gelu", "LayerNormalization"} & {node.op_type for node in after.model.graph}
    assert {node.op_type for node in before.model.graph} >= {"Gelu", "LayerNormalization"}


def test_the_formula_of_gelu_is_within_a_step_of_8_bits() -> None:
    x = np.linspace(-8, 8, 4001)
    exact = np.array([0.5 * v * (1 + erf(v / sqrt(2))) for v in x])
    assert np.abs(x / (1 + np.exp(-(SLOPE * x + CUBE * x**3))) - exact).max() < 5e-4 < 8 / 255


@pytest.mark.parametrize("name", SPECS)
def test_every_operator_reads_and_writes_int8_and_the_logits_stay(name: str) -> None:
    lowered = spelt_out(SPECS[name])
    ranges = ranges_of(lowered)
    made = run_passes(lowered.model, QuantizeWhole(ranges, RECIPE))
    computing = [n for n in made.graph if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    for node in computing:
        for value in node.inputs:
            if value is not None and value.dtype == ir.DataType.FLOAT and node.op_type != "Pow":
                maker = value.producer()
                assert maker is not None and maker.op_type == "DequantizeLinear", f"{node.name} reads {value.name}"
    with scratch_session(lowered) as one, scratch_session(replace(lowered, model=made, precision="int8")) as other:
        assert compare(other.run(images(lowered.spec)), one.run(images(lowered.spec))).relative_l2 < 0.1


def test_a_sigmoid_has_the_scale_that_integer_kernels_write_and_squares_saturate() -> None:
    lowered = spelt_out(SPEC)
    made = run_passes(lowered.model, QuantizeWhole(ranges_of(lowered), RECIPE)).graph.initializers
    for name in ("stage0/block00/gelu1", "stage0/block00/gelu2"):
        assert constant_of(made[f"{name}/share/scale"]) == np.float32(1 / 256)
        assert constant_of(made[f"{name}/share/zero_point"]) == -128
        assert constant_of(made[f"{name}/square/scale"]) <= np.float32(16 / 255)


def _scale(graph: ir.Graph) -> None:
    value = graph.initializers["stage0/block00/norm1/squares/scale"]
    set_array(value, constant_of(value) * np.float32(1.2))


def _constant(graph: ir.Graph) -> None:
    value = graph.initializers["stage0/block00/gelu1/weighted/constant1_q"]
    set_array(value, constant_of(value) - np.int8(1))


def _weight(graph: ir.Graph) -> None:
    value = graph.initializers["stage0/block00/fc2/weight_q"]
    set_array(value, np.ascontiguousarray(constant_of(value)[::-1]))


def _source(graph: ir.Graph) -> None:
    nodes = {str(node.name): node for node in graph}
    nodes["stage0/block00/norm1"].replace_input_with(0, nodes["stage0/block00/norm1/mean"].inputs[0])


def _table(graph: ir.Graph) -> None:
    node = next(node for node in graph if node.op_type == "Slice")
    value = node.inputs[1]
    assert value is not None
    set_array(value, constant_of(value) + 1)


@pytest.mark.parametrize("fault", [_scale, _constant, _weight, _source, _table])
def test_a_fault_of_the_pass_is_found(fault: Callable[[ir.Graph], None], monkeypatch: pytest.MonkeyPatch) -> None:
    lowered, rewrite = spelt_out(SPEC), QuantizeWhole.rewrite
    ranges = ranges_of(lowered)

    def faulty(self: QuantizeWhole, graph: ir.Graph) -> None:
        rewrite(self, graph)
        fault(graph)

    monkeypatch.setattr(QuantizeWhole, "rewrite", faulty)
    with pytest.raises(ParityError, match="is not the float32 graph at a lower precision"):
        run_passes(lowered.model, QuantizeWhole(ranges, RECIPE))


def test_a_value_without_a_range_is_named() -> None:
    lowered = spelt_out(SPEC)
    ranges = ranges_of(lowered)
    del ranges["stage0/block00/norm1/mean"]
    with pytest.raises(InternalError, match="stage0/block00/norm1/mean has no calibrated range"):
        run_passes(lowered.model, QuantizeWhole(ranges, RECIPE))
