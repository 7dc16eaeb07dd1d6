"""The int8 recipes: where quantization stands in the graph, of which types, and what its numbers are."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from helpers.support import pyramid_spec, random_model, small_spec, weights_of, with_biases, with_stem_norms
from s2mlp_deploy.errors import InternalError, ParityError
from s2mlp_deploy.families.s2mlp.family import S2MLPFamily
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.graph.builder import constant_of, set_array
from s2mlp_deploy.graph.layer import Layer
from s2mlp_deploy.graph.lowered import Axes, Lowered
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes import verify_rewrite
from s2mlp_deploy.passes.float16 import ToFloat16BetweenProducts
from s2mlp_deploy.passes.io_type import CastIo
from s2mlp_deploy.passes.quantize import Quantize
from s2mlp_deploy.passes.recipe import RECIPES, Range
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.passes.verify_rewrite import PRODUCT
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.shift import DIRECTIONS, Shift

SPECS = {
    "one stage": small_spec(depth=1),
    "pyramid": pyramid_spec(),
    "no biases": with_biases(small_spec(depth=1), frozenset()),
    "groups of one width": small_spec(depth=1, channels=16),
    "one direction": small_spec(depth=1, shift=Shift(((1, 0),))),
    "eight directions": small_spec(depth=1, shift=Shift(DIRECTIONS["8"])),
    "in place": small_spec(depth=1, shift=Shift(semantics="inplace")),
    "zero border": small_spec(depth=1, shift=Shift(border="zero")),
    "wrapped border": small_spec(depth=1, shift=Shift(border="wrap")),
    "final norm": replace(small_spec(depth=1), final_norm=True),
    "stem norms": with_stem_norms(pyramid_spec()),
    "norm after the mean": replace(small_spec(depth=1), final_norm=True, norm_after_mean=True),
}
MOVES = {
    "slice": {"Reshape", "Split", "Slice", "Concat", "Expand"},
    "gather": {"Reshape", "Split", "Gather", "Concat"},  # without Split and Concat where groups are equally wide
    "pad": {"Reshape", "Pad", "Split", "Slice", "Concat"},
    "conv": set(),
}
"""What may stand between quantization and a block's second product; with conv, or zeros to write, the shift stays in float."""

block_layers, end_layers = S2MLPFamily().block_layers, S2MLPFamily().end_layers


@dataclass(frozen=True)
class Float:
    """A float graph and what calibration on ``images`` would say of it."""

    lowered: Lowered
    images: Array
    ranges: dict[str, Range]

    @classmethod
    @functools.cache  # Quantize does not touch the graph, which is tested
    def of(
        cls, spec: S2MLPSpec, lowering: str = "gather", *, axes: Axes | None = None, model: S2MLP | None = None
    ) -> Float:
        axes = axes or Axes(None, spec.image_size)
        lowered = lower(spec, weights_of(model or random_model(spec)), LOWERINGS[lowering], axes)
        shape = (axes.batch or 3, spec.in_channels, *spec.image_size)
        images = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        names = set(RECIPES["litert"].values(all_layers(spec))) - {"input"}
        values = {"input": images, **trace(lowered, images, *sorted(names))}
        return cls(lowered, images, {n: Range(float(x.min()), float(x.max())) for n, x in values.items()})

    def at(self, target: str, layers: Collection[Layer] | None = None) -> Lowered:
        wanted = block_layers(self.lowered.spec) if layers is None else layers
        graph = run_passes(self.lowered.model, Quantize(self.ranges, RECIPES[target], wanted))
        return replace(self.lowered, model=graph, precision="int8")


def all_layers(spec: S2MLPSpec) -> tuple[Layer, ...]:
    return block_layers(spec) + end_layers(spec)


def trace(lowered: Lowered, images: Array, *names: str) -> dict[str, Array]:
    with scratch_session(lowered) as session:
        return dict(session.trace(images, names))


def logits(lowered: Lowered, images: Array) -> Array:
    with scratch_session(lowered) as session:
        return session.run(images)


def distance(actual: Array, expected: Array) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def node(model: ir.Model, name: str) -> ir.Node:
    (found,) = (n for n in model.graph if n.name == name)
    return found


def constant(model: ir.Model, name: str) -> Array:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


def dequantized(model: ir.Model, name: str) -> Array:
    """What the graph makes of the weight or bias called ``name``, computed in float64."""
    q, scale = constant(model, f"{name}_q"), constant(model, f"{name}_scale")
    return q.astype(np.float64) * scale.astype(np.float64).reshape(-1, *[1] * (q.ndim - 1))


def exact_specs() -> Iterator[tuple[str, str, bool, str]]:
    for spec_name, spec in SPECS.items():
        for lowering in LOWERINGS:
            for dynamic in (False, True) if spec_name == "pyramid" else (False,):
                if not LOWERINGS[lowering].refusal(spec.shift, dynamic_size=dynamic):
                    for target in RECIPES if spec_name == "pyramid" else ("x86",):
                        yield spec_name, lowering, dynamic, target


def way_back(start: ir.Value) -> tuple[list[ir.Value], list[ir.Node], set[str]]:
    """Values between a DequantizeLinear's input and QuantizeLinear, the Q nodes, and the operators passed."""
    values, quantizers, ops, pending = [], [], set(), [start]
    while pending:
        value = pending.pop()
        values.append(value)
        producer = value.producer()
        assert producer is not None, f"{value.name} was never quantized"
        if producer.op_type == "QuantizeLinear":
            quantizers.append(producer)
            continue
        ops.add(producer.op_type)
        data = producer.inputs if producer.op_type == "Concat" else producer.inputs[:1]
        pending += [v for v in data if v is not None]
    return values, quantizers, ops


@pytest.mark.parametrize(("spec_name", "lowering", "dynamic", "target"), list(exact_specs()))
def test_every_layers_input_is_quantized_behind_the_norm_or_gelu_and_travels_as_bytes(
    spec_name: str, lowering: str, dynamic: bool, target: str
) -> None:
    spec = SPECS[spec_name]
    given = Float.of(spec, lowering, axes=Axes(None, None if dynamic else spec.image_size))
    quantized = given.at(target, all_layers(spec)).model
    proto = ir.to_proto(quantized)
    onnx.checker.check_model(proto, full_check=True)
    byte = ir.DataType.from_numpy(np.dtype(RECIPES[target].activation))
    for layer in all_layers(spec):
        value = node(quantized, layer.name).inputs[0]
        assert value is not None
        dq = value.producer()
        assert dq is not None and dq.op_type == "DequantizeLinear" and dq.name == f"{layer.name}/dequantize"
        between, quantizers, ops = way_back(dq.inputs[0])  # type: ignore[arg-type]
        assert {v.dtype for v in between} == {byte}
        (q,) = {str(q.name): q for q in quantizers}.values()
        in_float = lowering == "conv" or spec.shift.border == "zero"
        moved_in_float = in_float and layer.name.endswith("fc2")
        source = "shift/tokens" if moved_in_float else layer.activation
        assert q.inputs[0] is not None and str(q.inputs[0].name).endswith(source)
        assert ops <= (MOVES[lowering] if layer.name.endswith("fc2") else set())
        assert bool(ops) == (layer.name.endswith("fc2") and not in_float)


@pytest.mark.parametrize("target", RECIPES)
@pytest.mark.parametrize("lowering", LOWERINGS)
def test_the_types_that_the_graph_states_are_those_that_its_operators_give(lowering: str, target: str) -> None:
    quantized = Float.of(pyramid_spec(), lowering).at(target).model
    stated = {str(v.name): v.dtype for n in quantized.graph for v in n.outputs if v.dtype is not None}
    proto = ir.to_proto(quantized)
    del proto.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph.value_info
    found = {v.name: ir.DataType(v.type.tensor_type.elem_type) for v in inferred}
    assert {n: found[n] for n in stated if n in found} == {n: t for n, t in stated.items() if n in found}
    assert any(t == ir.DataType.from_numpy(np.dtype(RECIPES[target].activation)) for t in found.values())


@pytest.mark.parametrize(("target", "activation"), [("x86", np.uint8), ("arm", np.int8)])
def test_onnx_runtimes_recipes_have_int8_weights_by_output_channel_and_int32_biases(
    target: str, activation: type
) -> None:
    given = Float.of(small_spec())
    quantized = given.at(target).model
    for layer in block_layers(given.lowered.spec):
        _, weight, bias = node(quantized, layer.name).inputs
        rows = constant(given.lowered.model, layer.name.replace("/", ".").replace("block0", "blocks.") + ".weight")
        for value, dtype in ((weight, np.int8), (bias, np.int32)):
            assert value is not None
            dq = value.producer()
            assert dq is not None and dq.op_type == "DequantizeLinear" and dq.attributes["axis"].as_int() == 0
            q, scale, *zero_points = (constant(quantized, str(v.name)) for v in dq.inputs if v is not None)
            assert all(z.dtype == dtype and not z.any() for z in zero_points)
            assert (q.dtype, scale.dtype, scale.shape) == (dtype, np.float32, (len(rows),))
        assert constant(quantized, f"{layer.name}/weight_q").shape == rows.shape
        assert constant(quantized, f"{layer.name}/x_zero_point").dtype == activation
        x, w, b = (constant(quantized, f"{layer.name}/{n}_scale") for n in ("x", "weight", "bias"))
        np.testing.assert_array_equal(b, w * x)


def test_tensorrts_recipe_has_int8_alone_and_no_zero_point_but_zero() -> None:
    spec = small_spec()
    quantized = Float.of(spec).at("trt", all_layers(spec)).model
    constants = {n: constant(quantized, n) for n in quantized.graph.initializers}
    values = [v for n in quantized.graph for v in n.outputs]
    assert not {ir.DataType.UINT8, ir.DataType.INT32} & {v.dtype for v in values}
    assert not {np.dtype(np.uint8), np.dtype(np.int32)} & {a.dtype for a in constants.values()}
    zero_points = [a for n, a in constants.items() if n.endswith("zero_point")]
    assert len(zero_points) == 2 * len(all_layers(spec))
    assert all(a.dtype == np.int8 and not a.any() for a in zero_points)
    assert all(np.abs(a.astype(int)).max() == 127 for n, a in constants.items() if n.endswith("weight_q"))
    for layer in all_layers(spec):
        bias = node(quantized, layer.name).inputs[2]
        assert bias is not None and bias.dtype == ir.DataType.FLOAT and bias.is_initializer()


def test_litert_s_recipe_reads_and_writes_bytes_and_restores_them_under_the_old_names() -> None:
    """A product's output is quantized for its own calibrated range; all that reads it finds it under the name that it had."""
    spec = small_spec()
    given = Float.of(spec)
    quantized = given.at("litert", all_layers(spec)).model
    for layer in all_layers(spec):
        product = node(quantized, layer.name).outputs[0]
        (q,), (dq,) = product.consumers(), product.consumers()[0].outputs[0].consumers()
        assert (q.op_type, dq.op_type) == ("QuantizeLinear", "DequantizeLinear")
        old = node(given.lowered.model, layer.name).outputs[0]
        assert (dq.outputs[0].name, product.name) == (old.name, f"{old.name}{PRODUCT}")
        assert len(dq.outputs[0].uses()) == len(old.uses()) and q.outputs[0].dtype == ir.DataType.INT8
        low, high = given.ranges[layer.name].low, given.ranges[layer.name].high
        scale = constant(quantized, f"{layer.name}/y_scale")
        assert scale == pytest.approx((max(high, 0) - min(low, 0)) / 255)
    assert [v.name for v in quantized.graph.outputs] == ["logits"]


@pytest.mark.parametrize("target", RECIPES)
def test_embeddings_and_classifier_stay_in_float_unless_asked_for(target: str) -> None:
    spec = pyramid_spec()
    given = Float.of(spec)
    plain, whole = given.at(target).model, given.at(target, all_layers(spec)).model
    for layer in end_layers(spec):
        before, after = node(given.lowered.model, layer.name), node(plain, layer.name)
        assert [v.name for v in after.inputs if v] == [v.name for v in before.inputs if v]
        for value in after.inputs[1:]:
            assert value is not None
            np.testing.assert_array_equal(
                constant(plain, str(value.name)), constant(given.lowered.model, str(value.name))
            )
        assert f"{layer.name}/x_scale" not in plain.graph.initializers
        assert f"{layer.name}/x_scale" in whole.graph.initializers
    ops = Counter(n.op_type for n in plain.graph)
    layers, recipe = len(block_layers(spec)), RECIPES[target]
    assert layers == 4 * 3 and ops["QuantizeLinear"] == layers * (1 + recipe.outputs)
    assert ops["DequantizeLinear"] == layers * (2 + recipe.int32_bias + recipe.outputs)


@pytest.mark.parametrize("target", RECIPES)
def test_a_layer_that_is_not_named_keeps_its_weights_and_its_values_bit_by_bit(target: str) -> None:
    given = Float.of(small_spec())
    late = [layer for layer in block_layers(given.lowered.spec) if "block01/fc3" in layer.name]
    quantized = given.at(target, late)
    names = [f"stage0/block00/{n}" for n in ("fc1", "fc2", "fc3", "fc4")] + ["stage0/block01/norm2"]
    before, after = trace(given.lowered, given.images, *names), trace(quantized, given.images, *names)
    for name in names:
        np.testing.assert_array_equal(after[name], before[name])
    assert Counter(n.op_type for n in quantized.model.graph)["QuantizeLinear"] == 1 + RECIPES[target].outputs
    kept = {n for n in given.lowered.model.graph.initializers if "blocks.1.fc3" not in n}
    for name in kept:
        np.testing.assert_array_equal(constant(quantized.model, name), constant(given.lowered.model, name))
    left = {"stage0.blocks.1.fc3.bias"} if target == "trt" else set()
    assert {n for n in quantized.model.graph.initializers if "blocks.1.fc3" in n} == left


def test_quantizing_nothing_changes_nothing_and_the_float_graph_is_never_touched() -> None:
    given = Float.of(small_spec())
    before = ir.to_proto(given.lowered.model).SerializeToString(deterministic=True)
    assert ir.to_proto(given.at("x86", ()).model).SerializeToString(deterministic=True) == before
    for target in RECIPES:
        given.at(target, all_layers(given.lowered.spec))
        assert ir.to_proto(given.lowered.model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("batch", [None, 2])
def test_onnx_runtime_computes_every_product_of_the_x86_recipe_in_integers(
    lowering: str, batch: int | None, tmp_path: Path
) -> None:
    spec = small_spec(channels=24)
    quantized = Float.of(spec, lowering, axes=Axes(batch, spec.image_size)).at("x86")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(ir.to_proto(quantized.model).SerializeToString(), options)
    optimized = onnx.load(tmp_path / "optimized.onnx").graph
    ops = Counter(n.op_type for n in optimized.node)
    assert ops["QGemm"] == len(block_layers(spec))
    assert ops["Gemm"] + ops["MatMul"] + ops["FusedGemm"] == 1  # the classifier
    assert ops["DequantizeLinear"] == 0


@pytest.mark.parametrize("target", ["x86", "trt", "litert"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_logits_stay_close_and_are_the_same_whichever_lowering_moves_the_bytes(spec: S2MLPSpec, target: str) -> None:
    results = []
    for lowering in LOWERINGS:
        if not LOWERINGS[lowering].refusal(spec.shift, dynamic_size=False):
            given = Float.of(spec, lowering)
            results.append(logits(given.at(target), given.images))
            assert 0 < distance(results[-1], logits(given.lowered, given.images)) < 0.05
    assert results
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=2e-6)


def unequal_model(spec: S2MLPSpec) -> S2MLP:
    """A model whose channels differ by five orders of magnitude, one of them zero."""
    model = random_model(spec)
    with torch.no_grad():
        for block in ("stages.0.blocks.0", "stages.0.blocks.1"):
            for fc in ("fc1", "fc3"):
                weight = model.get_parameter(f"{block}.{fc}.weight")
                weight *= torch.logspace(-4, 1, len(weight))[:, None]
                weight[3] = 0
    return model


@pytest.mark.parametrize("target", RECIPES)
def test_each_channels_weights_are_within_half_a_step_of_its_own(target: str) -> None:
    spec = small_spec()
    given = Float.of(spec, model=unequal_model(spec))
    quantized = given.at(target, all_layers(spec)).model
    for layer in all_layers(spec):
        want = node(given.lowered.model, layer.name).inputs[1]
        assert want is not None and want.const_value is not None
        weight = want.const_value.numpy().astype(np.float64).reshape(len(want.const_value.numpy()), -1)
        error = np.abs(dequantized(quantized, f"{layer.name}/weight").reshape(weight.shape) - weight).max(1)
        assert (error <= np.abs(weight).max(1) / 127 * (0.5 + 1e-5)).all()


@pytest.mark.parametrize("target", RECIPES)
@pytest.mark.parametrize("bias", [1e-3, 0.3, -7.0])
def test_a_channel_without_weights_is_its_bias(bias: float, target: str) -> None:
    spec = small_spec(depth=1)
    model = random_model(spec)
    with torch.no_grad():
        model.get_parameter("stages.0.blocks.0.fc3.weight")[5] = 0
        model.get_parameter("stages.0.blocks.0.fc3.bias")[5] = bias
    given = Float.of(spec, model=model)
    name = f"stage0/block00/fc3{PRODUCT if RECIPES[target].outputs else ''}"
    channel = trace(given.at(target), given.images, name)[name][:, 5]
    np.testing.assert_allclose(channel, np.float32(bias), rtol=1e-6)


@pytest.mark.parametrize("target", RECIPES)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_bias_far_larger_than_its_channels_weights_fits_into_32_bits_with_the_products_added(
    sign: int, target: str
) -> None:
    spec = small_spec(depth=1)
    model = random_model(spec)
    with torch.no_grad():
        weight = model.get_parameter("stages.0.blocks.0.fc1.weight")
        weight[4] *= 3e-4  # its products still count in units of the bias's step
        weight[6] *= 1e-9
        for row in (4, 6):
            model.get_parameter("stages.0.blocks.0.fc1.bias")[row] = sign * 100.0
    given = Float.of(spec, model=model)
    name = f"stage0/block00/fc1{PRODUCT if RECIPES[target].outputs else ''}"
    channels = trace(given.at(target), given.images, name)[name][:, [4, 6]]
    np.testing.assert_allclose(channels, sign * 100.0, rtol=1e-5)


@pytest.mark.parametrize("target", RECIPES)
@pytest.mark.parametrize(
    "span", [Range(-1.5, 2.25), Range(2.0, 5.0), Range(-5.0, -2.0), Range(-0.17, 9.3), Range(-1e-6, 3e4)], ids=str
)
def test_an_activations_range_always_holds_zero_which_is_exact(span: Range, target: str) -> None:
    given = Float.of(small_spec(depth=1))
    layer = block_layers(given.lowered.spec)[0]
    ranges = {**given.ranges, layer.activation: span}
    recipe = RECIPES[target]
    model = run_passes(given.lowered.model, Quantize(ranges, recipe, [layer]))
    scale = constant(model, f"{layer.name}/x_scale").astype(np.float64)
    zero_point = int(constant(model, f"{layer.name}/x_zero_point"))
    low, high = recipe.limits
    assert low <= zero_point <= high
    reach = (low - zero_point) * scale, (high - zero_point) * scale
    wanted = min(span.low, 0.0), max(span.high, 0.0)
    step = scale * 0.5001
    assert reach[0] <= 0 <= reach[1]
    assert reach[0] - step <= wanted[0] and wanted[1] <= reach[1] + step
    if recipe.symmetric:
        assert zero_point == 0 and scale == pytest.approx(max(map(abs, wanted)) / 127)
    else:
        assert scale == pytest.approx((wanted[1] - wanted[0]) / 255)


def test_symmetric_ranges_use_127_steps_to_either_side() -> None:
    assert RECIPES["trt"].limits == (-127, 127)
    assert RECIPES["arm"].limits == (-128, 127)
    assert RECIPES["x86"].limits == (0, 255)


def test_layers_are_listed_in_the_order_of_computation() -> None:
    spec = pyramid_spec()
    order = [str(n.name) for n in Float.of(spec).lowered.model.graph]
    for layers in (block_layers(spec), end_layers(spec)):
        places = [order.index(layer.name) for layer in layers]
        assert places == sorted(places)
    assert len(all_layers(spec)) == sum(n.op_type in ("Gemm", "Conv") for n in Float.of(spec).lowered.model.graph)


# What the pass requires and ensures


def test_a_layer_that_is_not_there_or_has_no_range_is_refused() -> None:
    given = Float.of(small_spec(depth=1))
    recipe = RECIPES["x86"]
    with pytest.raises(InternalError, match="stage9/block00/fc1 is no layer with a constant weight"):
        run_passes(given.lowered.model, Quantize(given.ranges, recipe, [Layer("stage9/block00/fc1", "input")]))
    with pytest.raises(
        InternalError, match="stage0/block00/norm1, which stage0/block00/fc1 reads, has no calibrated range"
    ):
        run_passes(given.lowered.model, Quantize({}, recipe, block_layers(given.lowered.spec)))
    read = {name: span for name, span in given.ranges.items() if not name.endswith("fc4")}
    with pytest.raises(InternalError, match="the output of stage0/block00/fc4 has no calibrated range"):
        run_passes(given.lowered.model, Quantize(read, RECIPES["litert"], block_layers(given.lowered.spec)))


def test_an_int8_graph_is_not_quantized_again() -> None:
    given = Float.of(small_spec(depth=1))
    quantized, layers = given.at("x86").model, block_layers(given.lowered.spec)
    with pytest.raises(InternalError, match="the pass takes a float32 graph"):
        run_passes(quantized, Quantize(given.ranges, RECIPES["x86"], layers))


def one_step(array: Array) -> Array:
    """``array`` of bytes or integers with its first number one step off."""
    off = array.copy()
    first = int(off.flat[0])
    off.flat[0] = first + (1 if first < 100 else -1)
    return off


def larger(array: Array) -> Array:
    return array * np.float32(1.05)


DAMAGES: dict[str, tuple[Callable[[Array], Array], str]] = {
    "x_scale": (larger, "the input of stage0/block00/fc3 is quantized for another range than"),
    "x_scale by little": (
        lambda scale: scale * np.float32(1.002),
        "the input of stage0/block00/fc3 is quantized for another range than",
    ),
    "x_zero_point": (one_step, "the input of stage0/block00/fc3 is quantized for another range than"),
    "x_zero_point of another type": (
        lambda zero: zero.astype(np.int8),
        "the input of stage0/block00/fc3 is quantized for another range than",
    ),
    "weight_scale": (larger, "the weight of stage0/block00/fc3 is another"),
    "weight_q": (one_step, "the weight of stage0/block00/fc3 is another"),
    "weight_zero_point": (lambda zeros: zeros + np.int8(1), "the weight of stage0/block00/fc3 is another"),
    "bias_scale": (larger, "the bias of stage0/block00/fc3 is another"),
    "bias_q": (one_step, "the bias of stage0/block00/fc3 is another"),
}
"""The constant of a layer that is changed, how, and how it is found."""


@pytest.mark.parametrize("target", RECIPES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_result_that_is_off_by_more_than_rounding_is_caught(
    target: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, recipe = Float.of(small_spec(depth=1)), RECIPES[target]
    constant = damage.partition(" ")[0]
    if (constant == "x_zero_point" and recipe.symmetric) or (constant.startswith("bias") and not recipe.int32_bias):
        return  # always 0, or not there
    if damage.endswith("type") and recipe.activation is np.int8:
        return
    rewrite = Quantize.rewrite
    change, message = DAMAGES[damage]

    def damaged(self: Quantize, graph: ir.Graph) -> None:
        rewrite(self, graph)
        value = graph.initializers[f"stage0/block00/fc3/{constant}"]
        set_array(value, change(constant_of(value)))

    monkeypatch.setattr(Quantize, "rewrite", damaged)
    with pytest.raises(ParityError, match=message):
        given.at(target)


@pytest.mark.parametrize("target", RECIPES)
def test_an_input_that_is_quantized_in_one_way_and_read_in_another_is_caught(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, rewrite = Float.of(small_spec(depth=1)), Quantize.rewrite

    def damaged(self: Quantize, graph: ir.Graph) -> None:
        rewrite(self, graph)
        scale, other = (graph.initializers[f"stage0/block00/{layer}/x_scale"] for layer in ("fc3", "fc4"))
        for quantizer in [n for n in graph if n.op_type == "QuantizeLinear" and n.inputs[1] is scale]:
            quantizer.replace_input_with(1, other)

    monkeypatch.setattr(Quantize, "rewrite", damaged)
    with pytest.raises(
        ParityError, match="the input of stage0/block00/fc3 is quantized in one way and read in another"
    ):
        given.at(target)


@pytest.mark.parametrize("target", [name for name, recipe in RECIPES.items() if not recipe.outputs])
def test_a_graph_that_gives_another_value_is_caught(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, rewrite = Float.of(small_spec(depth=1)), Quantize.rewrite

    def damaged(self: Quantize, graph: ir.Graph) -> None:
        rewrite(self, graph)
        graph.outputs[0] = next(node for node in graph if node.name == "head/mean").outputs[0]

    monkeypatch.setattr(Quantize, "rewrite", damaged)
    with pytest.raises(ParityError, match="its outputs are others"):
        given.at(target)


def _another_scale(node: ir.Node) -> None:
    node.replace_input_with(1, node.graph.initializers["stage0/block00/fc4/y_scale"])  # type: ignore[union-attr]


OUTPUT_FAULTS: dict[str, Callable[[ir.Node, ir.Node], object]] = {
    "is quantized in one way and read in another": lambda q, dq: _another_scale(dq),
    "is quantized for another range than": lambda q, dq: [_another_scale(n) for n in (q, dq)],
    "is not quantized": lambda q, dq: dq.replace_input_with(0, q.inputs[0]),
}


@pytest.mark.parametrize("message", OUTPUT_FAULTS)
def test_an_output_that_is_not_quantized_as_calibrated_is_caught(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Float.of(small_spec(depth=1))
    rewrite = Quantize.rewrite

    def damaged(self: Quantize, graph: ir.Graph) -> None:
        rewrite(self, graph)
        nodes = {n.name: n for n in graph}
        OUTPUT_FAULTS[message](*(nodes[f"stage0/block00/fc3/{n}_output"] for n in ("quantize", "dequantize")))

    monkeypatch.setattr(Quantize, "rewrite", damaged)
    with pytest.raises(ParityError, match=f"the output of stage0/block00/fc3 {message}"):
        given.at("litert")


# float16 between the products

HALF_TRT = replace(RECIPES["trt"], between=np.float16)


def test_scales_in_float16_are_the_smallest_that_hold_the_range() -> None:
    least = np.float32([1e-7, 3e-6, 5e-5, 1e-3, 0.1, 1, 7.77, 500])
    scale = HALF_TRT.scale(least)
    assert scale.dtype == np.float32 and (scale >= least).all()
    np.testing.assert_array_equal(scale, scale.astype(np.float16))
    assert (np.nextafter(scale.astype(np.float16), np.float16(0)) < least).all()
    np.testing.assert_array_equal(HALF_TRT.scale(scale), scale)
    np.testing.assert_array_equal(RECIPES["trt"].scale(least), least)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_all_that_is_not_int8_can_be_float16(lowering: str) -> None:
    given = Float.of(small_spec(), lowering)
    layers = block_layers(given.lowered.spec)
    quantized = run_passes(given.lowered.model, Quantize(given.ranges, HALF_TRT, layers))
    half = run_passes(quantized, ToFloat16BetweenProducts(), CastIo(ir.DataType.FLOAT))
    proto = ir.to_proto(half)
    onnx.checker.check_model(proto, full_check=True)
    types = {str(n): v.const_value.dtype for n, v in half.graph.initializers.items() if v.const_value is not None}
    assert set(types.values()) == {ir.DataType.FLOAT16, ir.DataType.INT8} | ({ir.DataType.INT64} & set(types.values()))
    assert {v.dtype for v in (*half.graph.inputs, *half.graph.outputs)} == {ir.DataType.FLOAT}
    made = replace(given.lowered, model=half, precision="int8")
    assert distance(logits(made, given.images), logits(given.lowered, given.images)) < 0.05


def test_a_scale_that_is_not_the_one_for_its_range_is_found_at_float16_too() -> None:
    given = Float.of(small_spec(depth=1))
    layers = block_layers(given.lowered.spec)
    quantized = run_passes(given.lowered.model, Quantize(given.ranges, HALF_TRT, layers))
    differences = functools.partial(
        verify_rewrite.quantization_differences,
        original=given.lowered.model.graph,
        ranges=given.ranges,
        recipe=HALF_TRT,
        layers=layers,
    )
    assert list(differences(quantized.graph)) == []
    name = f"{layers[0].name}/x_scale"
    set_array(quantized.graph.initializers[name], constant(quantized, name) * np.float32(1.01))
    (found,) = differences(quantized.graph)
    assert found.startswith(f"the input of {layers[0].name} is quantized for another range")
