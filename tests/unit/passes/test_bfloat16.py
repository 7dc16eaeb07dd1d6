"""bfloat16, for engines alone: ONNX Runtime has no kernels for it on a CPU, so onnx's own reference implementation judges here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from helpers.support import pyramid_spec, random_model, run, save_checkpoint, small_spec, weights_of
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec
from s2mlp_deploy.gate import reference_logits
from s2mlp_deploy.gate.checks import Verdict, check_logits
from s2mlp_deploy.gate.golden import make_inputs
from s2mlp_deploy.gate.rules import tolerance_for
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.passes.bfloat16 import ToBfloat16
from s2mlp_deploy.passes.io_type import CastIo
from s2mlp_deploy.passes.run_passes import run_passes
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.schema.shift import DIRECTIONS, Shift
from s2mlp_exporters.tensorrt.runtime import Gpu, find_gpu

SPECS = {"one stage": small_spec(channels=16), "odd widths": small_spec(), "pyramid": pyramid_spec()}
no_gpu = pytest.mark.skipif(isinstance(find_gpu(), Gpu), reason="this machine has a GPU")


def graph_of(
    spec: S2MLPSpec, lowering: str = "gather", weights: dict[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    weights = weights or weights_of(random_model(spec))
    lowered = lower(spec, weights, LOWERINGS[lowering], Axes(None, spec.image_size))
    rounded = run_passes(lowered.model, ToBfloat16(), CastIo(ir.DataType.FLOAT))
    return ir.to_proto(rounded)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("lowering", LOWERINGS)
def test_weights_and_activations_are_bfloat16_and_convolutions_and_borders_float32(
    spec: S2MLPSpec, lowering: str
) -> None:
    model = graph_of(spec, lowering)
    onnx.checker.check_model(model, full_check=True)
    shapes = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*shapes.value_info, *shapes.input, *shapes.output)}
    types |= {t.name: t.data_type for t in model.graph.initializer}
    half, full = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    assert types["input"] == types["logits"] == full
    for node in model.graph.node:
        if node.op_type in ("Gemm", "LayerNormalization", "Gelu", "Add", "ReduceMean"):
            assert {types[name] for name in (*node.input[:1], *node.output)} == {half}, node.name
        if node.op_type == "Conv":
            assert {types[name] for name in (*node.input, *node.output)} == {full}, node.name


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_reference_implementation_keeps_the_tolerance_with_it(spec: S2MLPSpec) -> None:
    model = random_model(spec)
    golden_reference = reference_logits.compare_pytorch(
        model,
        reference_logits.compute_reference(model, make_inputs(spec, Axes(None, spec.image_size))).golden,
        reference_logits.torch.bfloat16,
    )
    tolerance = tolerance_for("bf16", golden_reference)
    assert tolerance.relative_l2 <= 0.2  # wide enough for bfloat16, and far from another network

    def judged(proto: onnx.ModelProto) -> Verdict:
        session = ReferenceEvaluator(proto)
        outputs = {case: session.run(None, {"input": x})[0] for case, x in golden_reference.golden.inputs.items()}
        return check_logits(outputs, golden_reference.golden.logits, tolerance)

    assert judged(graph_of(spec)).passed, judged(graph_of(spec)).failures
    swapped = tuple(DIRECTIONS["4"][i] for i in (1, 0, 2, 3))
    assert not judged(graph_of(spec.with_shift(Shift(swapped)), weights=weights_of(model))).passed


@pytest.mark.slow
@no_gpu
def test_an_engine_in_bfloat16_waits_for_its_device_and_so_does_its_graph(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu12")
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    options = ("--precision", "bf16", "--format", "trt-rtx")
    assert run("export", checkpoint, *options, "-o", tmp_path / "engine").code == 1
    ran = run("export", checkpoint, *options, "--allow-unverified-engine", "-o", tmp_path / "engine")
    assert ran.code == 0 and "PENDING A DEVICE: its float32 graph passed" in ran.out
    manifest = json.loads((tmp_path / "engine" / "manifest.json").read_text())
    assert (manifest["precision"], manifest["verdict"]) == ("bf16", "pending a device")
    assert manifest["tolerance"]["relative_l2"] >= 4 * 2**-7 and "golden.safetensors" in manifest["files"]


def test_the_graph_taken_to_a_device_claims_no_check_that_did_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "small.pt", small_spec())
    ran = run("export", "small.pt", "--precision", "bf16", "--format", "trt")
    assert ran.code == 4 and "Copy the bf16 ONNX bundle small-onnx-bf16" in ran.err and "verified" not in ran.err
    assert json.loads(Path("small-onnx-bf16/manifest.json").read_text())["verdict"] == "pending a device"
    checked = run("verify", "small-onnx-bf16")
    assert checked.code == 4 and "bf16 graph, which nothing runs as format 'onnx'" in checked.err


@pytest.mark.parametrize("format", ["onnx", "ort"])
def test_formats_of_onnxruntime_refuse_it(tmp_path: Path, format: str) -> None:
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    ran = run("export", checkpoint, "--precision", "bf16", "--format", format, "-o", tmp_path / "out")
    assert ran.code == 2 and "bf16" in ran.err and "expected fp32 or fp16 or int8" in ran.err
