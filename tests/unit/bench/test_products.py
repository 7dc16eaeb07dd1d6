"""Graphs without a shift, products alone, and what others quantize: each computes what it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from helpers.support import random_model, save_checkpoint, small_spec, weights_of
from s2mlp_bench import graphs
from s2mlp_bench.backends import OnnxBackend, OpenVinoBackend
from s2mlp_bench.baselines.noshift import NoShift
from s2mlp_bench.candidate import Point
from s2mlp_bench.roofline.products import products
from s2mlp_deploy.checkpoint.load import load_checkpoint
from s2mlp_deploy.families.s2mlp.family import S2MLPFamily
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.graph.lowered import Axes, Lowered
from s2mlp_deploy.graph.spatial_shift import LOWERINGS, Lowering
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.quantization import calibration
from s2mlp_studies.engines import graphs as preset_graphs


def test_the_bound_leaves_out_the_shift_and_nothing_else() -> None:
    spec = small_spec()
    weights = weights_of(random_model(spec))
    axes = Axes(1, spec.image_size)

    def operators(lowering: Lowering) -> Counter[str]:
        return Counter(node.op_type for node in lower(spec, weights, lowering, axes).model.graph)

    without, gather = operators(NoShift()), operators(LOWERINGS["gather"])
    assert not {"Split", "Slice", "Gather", "Concat", "Pad"} & set(without)
    assert without["Gemm"] == gather["Gemm"] and without["Conv"] == 1
    assert sum(without.values()) < sum(gather.values())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    """A graph of two blocks in float32, with a shift."""
    spec = small_spec()
    path = save_checkpoint(tmp_path_factory.mktemp("small") / "small.pt", spec)
    return preset_graphs.lower(load_checkpoint(path), LOWERINGS["gather"])


@pytest.fixture(scope="module", params=["fp32", "int8"])
def lowered(request: pytest.FixtureRequest, small: Lowered) -> Lowered:
    return small if request.param == "fp32" else preset_graphs.quantized(small, preset_graphs.ranges(small), "x86")


def initializers(model: ir.Model, among: Collection[str]) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if name in among and value.const_value is not None
    }


def test_products_alone_keep_their_weights_scales_and_types(lowered: Lowered) -> None:
    whole, alone = lowered.model.graph, products(lowered).model.graph
    ours, theirs = ({n.name: n for n in graph} for graph in (alone, whole))
    names = [layer.name for layer in S2MLPFamily().block_layers(lowered.spec)]
    assert [str(y.name) for y in alone.outputs] == [str(theirs[name].outputs[0].name) for name in names]
    assert set(ours) <= set(theirs) and {n.op_type for n in alone} <= {"Gemm", "DequantizeLinear"}
    kept = initializers(products(lowered).model, alone.initializers)
    expected = initializers(lowered.model, alone.initializers)
    assert kept.keys() == expected.keys() == set(alone.initializers)
    assert all(np.array_equal(kept[name], expected[name]) for name in kept)
    dtype = ir.DataType.UINT8 if lowered.precision == "int8" else ir.DataType.FLOAT
    assert [(x.dtype, list(x.shape or ())) for x in alone.inputs] == [(dtype, [35, 13]), (dtype, [35, 39])]


def test_taking_the_products_leaves_the_graph_as_it_was(lowered: Lowered) -> None:
    before = ir.to_proto(lowered.model).SerializeToString(deterministic=True)
    products(lowered)
    assert ir.to_proto(lowered.model).SerializeToString(deterministic=True) == before


def test_a_product_alone_computes_what_it_does_in_the_whole_graph(lowered: Lowered, tmp_path: Path) -> None:
    for name, width in (("stage0/block01/fc1", 13), ("stage0/block01/fc4", 39)):
        node = next(n for n in lowered.model.graph if n.name == name)
        read = str(node.inputs[0].name) if lowered.precision == "fp32" else f"{name}/x_q"  # type: ignore[union-attr]
        with scratch_session(lowered) as session:
            values = session.trace(calibration.noise(lowered.spec)[:1], (read, name))
        alone = onnxruntime.InferenceSession(graphs.write(products(lowered), tmp_path / name.replace("/", " ")))
        feed = {x.name: np.zeros(x.shape, values[read].dtype) for x in alone.get_inputs()}
        feed[next(n for n in feed if n.endswith(f"x35x{width}"))] = values[read]
        np.testing.assert_allclose(alone.run([name], feed)[0], values[name], rtol=1e-5, atol=1e-6)


def test_onnxruntimes_own_quantization_computes_the_same_network_roughly(small: Lowered, tmp_path: Path) -> None:
    noise = calibration.noise(small.spec)
    path = graphs.write(small, tmp_path / "fp32")
    static = graphs.write_quantized_statically(path, noise, tmp_path / "static")
    expected = OnnxBackend(path).open(Point()).run(noise[:1])
    for backend in (OnnxBackend(static), OpenVinoBackend(static)):
        assert 0 < compare(backend.open(Point()).run(noise[:1]), expected).relative_l2 < 0.1
    assert [p.name for p in static.parent.iterdir()] == [static.name]


def test_quantizing_statically_says_nothing(
    small: Lowered, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = graphs.write(small, tmp_path / "fp32")
    graphs.write_quantized_statically(path, calibration.noise(small.spec), tmp_path / "static")
    assert caplog.text == "" and capfd.readouterr() == ("", "")


def test_openvino_computes_float32_as_float32(small: Lowered, tmp_path: Path) -> None:
    """Unless told otherwise it takes bfloat16, where the processor has it; that would be off by 1e-3."""
    images = calibration.noise(small.spec)[:1]
    path = graphs.write(small, tmp_path / "fp32")
    ours, theirs = (
        backend.open(Point(threads=1)).run(images) for backend in (OnnxBackend(path), OpenVinoBackend(path))
    )
    assert compare(theirs, ours).relative_l2 < 1e-5
