"""``--target litert-micro``: files of int8 from input to output, for LiteRT for microcontrollers and Arm's Ethos-U."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.formats import exported, manifest_of, noise, replace_file
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError, CompilerError, RuntimeMissingError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.gate.distance import compare

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")

from s2mlp_exporters.litert import artifact_scan, vela
from s2mlp_exporters.litert.exporter import MODEL, LiteRtModel
from s2mlp_exporters.litert.model_writer import pack
from s2mlp_exporters.litert.options import LiteRtOptions
from s2mlp_exporters.litert.schema import load_schema
from s2mlp_exporters.litert.session import LiteRtSession
from s2mlp_exporters.litert.translate import translate

NPU = "ethos-u55-128"
with_vela = pytest.mark.skipif(not find_spec("ethosu"), reason="needs ethos-u-vela")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx`` and ``litert`` of a small checkpoint, for one image at a time."""
    place = tmp_path_factory.mktemp("micro")
    checkpoint = save_checkpoint(place / "small.pt", small_spec(depth=1))
    np.save(place / "calibration.npy", noise(64))
    options = ("--precision", "int8", "--target", "litert-micro", "--calibration", place / "calibration.npy")
    one = ("--min-agreement", 0.9, "--shift", "slice", "--batch", 1)
    exported(checkpoint, *options, *one, "-o", place / "onnx")
    exported(place / "onnx", "--format", "litert", "-o", place / "litert")
    return place


def session_of(bundle: Path) -> LiteRtSession:
    return LiteRtModel().open_with_threads(read_bundle(bundle).artifact, 1)


def logits_of(bundle: Path, count: int) -> Any:
    session = registry.find(manifest_of(bundle)["format"]).open(read_bundle(bundle).artifact)
    return np.concatenate([session.run(image[None]) for image in noise(count)])


def test_every_tensor_of_the_file_is_an_integer(made: Path) -> None:
    schema = load_schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((made / "litert" / MODEL).read_bytes()))
    (graph,) = model.subgraphs
    x, y = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    assert {t.type for t in graph.tensors} == {schema.TensorType.INT8, schema.TensorType.INT32}
    assert (x.name, x.type, y.name, y.type) == (b"input", schema.TensorType.INT8, b"logits", schema.TensorType.INT8)
    assert x.quantization.scale.size == y.quantization.scale.size == 1
    assert manifest_of(made / "litert")["quantization"]["float_layers"] == []


def test_it_verifies_and_gives_what_its_graph_gives_in_onnxruntime(made: Path) -> None:
    verified = run("verify", made / "litert", "--per-block", "--json")
    assert verified.code == 0, verified.err
    assert list(verified.json["layers"]) == ["stage0/embedding", "stage0/block00", "logits"]
    assert compare(logits_of(made / "litert", 8), logits_of(made / "onnx", 8)).relative_l2 < 0.02


def test_the_interpreter_for_microcontrollers_gives_the_same(made: Path) -> None:
    runtime = pytest.importorskip("tflite_micro", reason="needs tflite-micro").runtime
    interpreter = runtime.Interpreter.from_file(str(made / "litert" / MODEL))
    (scale, *_), (zero_point, *_) = (
        interpreter.get_input_details(0)["quantization_parameters"][k] for k in ("scales", "zero_points")
    )
    expected, found = logits_of(made / "litert", 8), []
    for image in noise(8):
        bytes_ = np.clip(np.rint(image[None] / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_input(bytes_, 0)
        interpreter.invoke()
        of_output = interpreter.get_output_details(0)["quantization_parameters"]
        found.append((interpreter.get_output(0).astype(np.float32) - of_output["zero_points"]) * of_output["scales"])
    assert compare(np.concatenate(found), expected).relative_l2 < 0.05


def test_a_graph_that_is_not_int8_throughout_is_refused(made: Path, tmp_path: Path) -> None:
    exported(made / "small.pt", "-o", tmp_path / "fp32")
    with pytest.raises(CompilerError, match="it is not of int8 values with one scale"):
        translate(tmp_path / "fp32" / "model.onnx", whole=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--input", "uint8"), "takes prepared images and gives logits, both as int8: leave out --input and --answer"),
        (("--answer", "probabilities"), "leave out --input and --answer"),
        (("--dynamic-size",), "has one size of images for a file: leave out --dynamic-size"),
        (("--format", "executorch"), "does not take int8 graphs for --target litert-micro: expected litert"),
        (("--format", "ort"), "does not take int8 graphs for --target litert-micro"),
    ],
    ids=lambda o: " ".join(o) if isinstance(o, tuple) else "",
)
def test_combinations_that_do_not_exist_are_refused(
    options: tuple[str, ...], said: str, made: Path, tmp_path: Path
) -> None:
    if options[-1] == "executorch" and not find_spec("executorch"):
        pytest.skip("needs executorch")
    calibrated = ("--precision", "int8", "--target", "litert-micro", "--calibration", made / "calibration.npy")
    ran = run("export", made / "small.pt", *calibrated, *options, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "") and said in ran.err
    assert not (tmp_path / "out").exists()


def test_scales_that_would_end_the_process_are_refused(made: Path, tmp_path: Path) -> None:
    """LiteRT multiplies by fixed-point numbers, and checks no quotient of scales that is too large for one."""
    schema = load_schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs((made / "litert" / MODEL).read_bytes()))
    weights = next(t for t in model.subgraphs[0].tensors if t.name == b"stage0/block00/fc2/weight_q")
    weights.quantization.scale = np.where(
        np.arange(len(weights.quantization.scale)) == 1, 4e35, weights.quantization.scale
    )
    (tmp_path / MODEL).write_bytes(bytes(pack(model)))
    with pytest.raises(BundleError, match="reads and writes int8 of scales that are too far apart"):
        artifact_scan.inspect(tmp_path / MODEL)


# Ethos-U


@with_vela
def test_vela_puts_every_operator_on_the_npu(made: Path, tmp_path: Path) -> None:
    exported(made / "onnx", "--format", "litert", "--npu", NPU, "-o", tmp_path / "npu")
    manifest = manifest_of(tmp_path / "npu")
    assert manifest["engine"]["npu"] == NPU and manifest["engine"]["vela_version"] == vela.vela_version()
    assert (tmp_path / "npu" / MODEL).read_bytes() == (made / "litert" / MODEL).read_bytes()
    engine = json.loads((tmp_path / "npu" / "report.json").read_text("utf-8"))["engine"]
    assert engine["not_delegated"] == {} and engine["delegated"] > 50
    assert b"ethos-u" in (tmp_path / "npu" / vela.COMPILED).read_bytes()
    verified = run("verify", tmp_path / "npu")
    assert verified.code == 0, verified.err
    content = (tmp_path / "npu" / vela.COMPILED).read_bytes()
    replace_file(tmp_path / "npu", vela.COMPILED, content.replace(b"ethos-u", b"another"))
    ran = run("verify", tmp_path / "npu")
    assert (ran.code, ran.out) == (3, "") and "is none that this project or Vela writes" in ran.err


@with_vela
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--precision", "fp32"), "computes with int8 alone"),
        (("--target", "litert-micro"), "takes one size of inputs"),
    ],
    ids=["in float", "any batch"],
)
def test_an_npu_takes_int8_throughout_and_one_batch(
    options: tuple[str, ...], said: str, made: Path, tmp_path: Path
) -> None:
    calibrated = ("--precision", "int8", "--calibration", made / "calibration.npy", "--min-agreement", 0.9)
    of_int8 = calibrated if "--target" in options else ()
    ran = run(
        "export", made / "small.pt", "--format", "litert", *of_int8, *options, "--npu", NPU, "-o", tmp_path / "out"
    )
    assert (ran.code, ran.out) == (2, "") and said in ran.err and "--batch 1" in ran.err


def test_without_vela_the_remedy_is_named(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "missing", lambda: "--npu needs the package ethos-u-vela: pip install '.[vela]'")
    assert "ethos-u-vela" in str(LiteRtModel().cannot_compile(LiteRtOptions(npu=NPU)))
    assert LiteRtModel().cannot_run(LiteRtOptions(npu=NPU)) is None
    with pytest.raises(RuntimeMissingError, match="ethos-u-vela"):
        LiteRtModel().compile(read_bundle(made / "onnx"), tmp_path, LiteRtOptions(npu=NPU))
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_fails_is_said_with_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.tflite").write_bytes(b"none")
    monkeypatch.setattr(vela.subprocess, "run", lambda *_, **__: _Ended())
    with pytest.raises(CompilerError, match=rf"did not compile the model for {NPU}: Error: it is no model"):
        vela.compile_for(NPU, tmp_path / "model.tflite", tmp_path / "out.tflite")
    assert not (tmp_path / "out.tflite").exists()


class _Ended:
    returncode, stdout, stderr = 1, "", "Warning\nError: it is no model\n"


def test_a_compiled_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_vela.tflite").write_bytes(b"none at all")
    with pytest.raises(BundleError, match=vela.COMPILED):
        artifact_scan.inspect_compiled(tmp_path / "model_vela.tflite")
