"""``--format coreml``: packages written operator by operator hold the numbers when they are read back; a Mac is a recorded fake here."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers.formats import change_manifest, exported, manifest_of, noise, promised, replace_file
from helpers.support import run, save_checkpoint, small_spec
from helpers.translated_graphs import CHAINS, REFUSED, SPECS, Nodes, graph_of, save_chain, save_network
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError, CompilerError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.conformance import FormatConformance
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.schema.array import Array

pytest.importorskip("coremltools", reason="needs coremltools")

from s2mlp_exporters.coreml import artifact_scan, exporter, session
from s2mlp_exporters.coreml.exporter import CoreMlPackage
from s2mlp_exporters.coreml.package import CONTENTS, FILES, PACKAGE, PROGRAM, WEIGHTS
from s2mlp_exporters.coreml.program import OPERATORS as READ
from s2mlp_exporters.coreml.recompute import OPERATORS as COMPUTED
from s2mlp_exporters.coreml.recompute import RecomputedSession
from s2mlp_exporters.coreml.session import CoreMlSession
from s2mlp_exporters.coreml.toolkit import REMEDY, load
from s2mlp_exporters.coreml.translate import EMITTERS, MOST_IMAGES, translate
from s2mlp_exporters.coreml.weights import WeightFile

PRECISIONS = ("fp32", "fp16", "int8w")
PENDING = ("--format", "coreml", "--allow-unverified-engine")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx-P``, ``coreml-P`` of a small checkpoint, for each precision P, and ``coreml-image``, which takes an image."""
    place = tmp_path_factory.mktemp("made")
    checkpoint = save_checkpoint(place / "small.pt", small_spec())
    for precision in PRECISIONS:
        exported(checkpoint, "--precision", precision, "-o", place / f"onnx-{precision}")
        exported(place / f"onnx-{precision}", *PENDING, "-o", place / f"coreml-{precision}")
    exported(checkpoint, *PENDING, "--input", "uint8", "--batch", 1, "-o", place / "coreml-image")
    return place


@pytest.fixture
def package(made: Path, tmp_path: Path) -> Path:
    """A copy of the fp32 bundle, to be changed."""
    return Path(shutil.copytree(made / "coreml-fp32", tmp_path / "engine"))


def recomputed(bundle: Path) -> RecomputedSession:
    return CoreMlPackage().recompute(read_bundle(bundle).artifact)


def spec_in(bundle: Path) -> Any:
    """The program's file as an object of Core ML's schema."""
    spec = load("coremltools.proto.Model_pb2").Model()
    spec.ParseFromString((bundle / PROGRAM).read_bytes())
    return spec


def block_of(spec: Any) -> Any:
    return spec.mlProgram.functions["main"].block_specializations["CoreML6"]


# It is published, and waits for a Mac


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_package_is_recomputed_and_waits_for_a_mac(made: Path, precision: str) -> None:
    bundle = made / f"coreml-{precision}"
    manifest, report = manifest_of(bundle), json.loads((bundle / "report.json").read_text())
    assert promised(bundle).keys() == {*FILES, "manifest.json", "golden.safetensors"}
    assert manifest["verdict"] == "pending a device" and manifest["artifact"] == CONTENTS
    assert manifest["engine"] == {"runtime": "coreml", "compute_units": "all"}
    assert manifest["versions"]["coremltools"] == version("coremltools")
    worst = max(found["relative_l2"] for found in report["distances"].values())
    assert 0 < worst < {"fp32": 1e-7, "fp16": 2e-3, "int8w": 0.02}[precision]


def test_the_recomputation_is_told_and_passes_for_no_verdict(made: Path, tmp_path: Path) -> None:
    ran = run("export", made / "onnx-fp32", *PENDING, "-o", tmp_path / "out")
    shown = " ".join(ran.out.split())
    assert "PENDING A DEVICE: its graph passed, and so did the engine, recomputed here (relative L2 up to" in shown
    assert "PASSED" not in shown
    ran = run("export", made / "onnx-fp32", *PENDING, "--json", "-o", tmp_path / "again")
    assert ran.json["exports"][0]["passed"] is None


def test_without_the_mac_it_takes_a_word_to_publish(made: Path, tmp_path: Path) -> None:
    ran = run("export", made / "onnx-fp32", "--format", "coreml", "-o", tmp_path / "out")
    assert ran.code == 1 and "pass --allow-unverified-engine" in ran.err and "Apple's systems" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_verification_elsewhere_is_refused(made: Path) -> None:
    ran = run("verify", made / "coreml-fp32")
    assert (ran.code, ran.out) == (4, "") and "Copy the bundle to a Mac and verify it there" in ran.err


def test_from_the_checkpoint_and_from_its_bundle_every_byte_is_the_same(made: Path, tmp_path: Path) -> None:
    exported(made / "small.pt", *PENDING, "-o", tmp_path / "out")
    assert promised(tmp_path / "out") == promised(made / "coreml-fp32")


def test_other_processes_write_the_same_bytes(made: Path, tmp_path: Path) -> None:
    """Under other hash seeds, in other directories, and without a word."""
    code = "import sys; from pathlib import Path"
    code += "; from s2mlp_exporters.coreml.translate import translate; translate(Path(sys.argv[1]), Path(sys.argv[2]))"
    graph = made / "onnx-int8w" / "model.onnx"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(graph), str(tmp_path / str(seed))],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for seed in range(2)
    ]
    assert [process.communicate() for process in processes] == [(b"", None)] * 2
    for name in FILES:
        assert {(tmp_path / str(seed) / name).read_bytes() for seed in range(2)} == {
            (made / "coreml-int8w" / name).read_bytes()
        }


def test_coremltools_is_imported_alone_and_without_a_word() -> None:
    """Whatever it would convert the models of is neither imported nor hidden for longer, and its logger is left as it was."""
    code = "import logging, sys; sys.modules['sklearn'] = 'kept'; from s2mlp_exporters.coreml.toolkit import OF_OTHERS, load; load()"
    code += "; assert logging.getLogger('coremltools').level == logging.NOTSET"
    code += "; assert [n for n in OF_OTHERS if n in sys.modules] == ['sklearn'] and sys.modules['sklearn'] == 'kept'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_bill_of_materials_names_coremltools(made: Path, tmp_path: Path) -> None:
    exported(made / "onnx-fp32", *PENDING, "--sbom", "-o", tmp_path / "out")
    bill = json.loads((tmp_path / "out" / "sbom.cdx.json").read_text())
    assert f"pkg:pypi/coremltools@{version('coremltools')}" in {c.get("purl") for c in bill["components"]}


# The package


@pytest.mark.parametrize("name", [*(f"coreml-{precision}" for precision in PRECISIONS), "coreml-image"])
def test_coremltools_own_reader_takes_the_program(made: Path, name: str) -> None:
    """It builds each operator anew, with the types and shapes that these imply, which are those that the program states."""
    spec = spec_in(made / name)
    reader = load("coremltools.converters.mil.frontend.milproto.load")
    program = reader.load(spec, spec.specificationVersion, str((made / name / WEIGHTS).parent))
    block = block_of(spec)
    built = {op.outputs[0].name: op for op in program.functions["main"].operations}
    assert list(program.functions["main"].inputs) == ["input"]
    assert [x.name for x in program.functions["main"].outputs] == ["logits"] == list(block.outputs)
    for item in block.operations:
        (output,) = item.outputs
        stated = [d.constant.size or None for d in output.type.tensorType.dimensions]
        shape = [n if isinstance(n, int) else None for n in built[output.name].outputs[0].shape]
        assert (item.type, stated) == (built[output.name].op_type, shape), output.name


def test_operators_are_core_mls_own(made: Path) -> None:
    """One product a layer, one operator a GELU and a LayerNorm, and nothing but const beside them."""
    found = [operation.type for operation in block_of(spec_in(made / "coreml-fp32")).operations]
    assert [found.count(kind) for kind in ("linear", "gelu", "layer_norm", "conv", "gather")] == [9, 4, 4, 1, 8]
    assert {*found} - {"const"} <= READ.keys()


def test_weights_keep_their_type(made: Path) -> None:
    sizes = {precision: (made / f"coreml-{precision}" / WEIGHTS).stat().st_size for precision in PRECISIONS}
    assert sizes["int8w"] < sizes["fp16"] < sizes["fp32"]
    graph = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(made / "onnx-int8w" / "model.onnx").graph.initializer
    }
    operations = artifact_scan.inspect(made / "coreml-int8w").operations
    found = [op.arguments for op in operations if op.kind == "constexpr_affine_dequantize"]
    assert len(found) == 9
    kept = [array.tobytes() for name, array in graph.items() if name.endswith("_q")]
    assert all(given["quantized_data"].tobytes() in kept for given in found)  # type: ignore[union-attr]


def test_float16_is_that_of_the_weights_or_for_the_neural_engine_of_all(made: Path, tmp_path: Path) -> None:
    """float16 weights are widened to float32 when the model is loaded; a graph for GPUs computes in float16 throughout."""
    operations = artifact_scan.inspect(made / "coreml-fp16").operations
    casts = [op.dtype for op in operations if op.kind == "constexpr_cast"]
    assert len(casts) >= 9 and {op.dtype for op in operations} == {"float32"}
    exported(made / "small.pt", *PENDING, "--precision", "fp16", "--target", "trt", "-o", tmp_path / "out")
    operations = artifact_scan.inspect(tmp_path / "out").operations
    assert {op.dtype for op in operations if op.kind in ("linear", "gelu", "layer_norm")} == {"float16"}


def test_the_package_stands_alone_with_names_preprocessing_and_checkpoint(made: Path) -> None:
    described = recomputed(made / "coreml-fp32").describe()
    assert [(e.name, e.dtype, e.shape) for e in (*described.inputs, *described.outputs)] == [
        ("input", "float32", ("any", 3, 20, 28)),
        ("logits", "float32", ("any", 7)),
    ]
    assert json.loads(described.metadata["s2mlp.preprocessing"])["mean"] == [0.5, 0.5, 0.5]
    assert described.metadata["s2mlp.checkpoint_sha256"] == manifest_of(made / "coreml-fp32")["source"]["sha256"]
    (feature,) = spec_in(made / "coreml-fp32").description.input
    ranges = [(r.lowerBound, r.upperBound) for r in feature.type.multiArrayType.shapeRange.sizeRanges]
    assert ranges == [(1, MOST_IMAGES), (3, 3), (20, 20), (28, 28)]


def test_bytes_are_an_image_for_core_ml(made: Path) -> None:
    """Of the model's size and RGB; normalization is a part of the program, for any mean and std."""
    (feature,) = spec_in(made / "coreml-image").description.input
    image = feature.type.imageType
    assert (feature.name, image.height, image.width, image.colorSpace) == ("input", 20, 28, 20)
    assert recomputed(made / "coreml-image").describe().inputs[0].shape == (1, 20, 28, 3)


@pytest.mark.parametrize(
    "options",
    [
        ("--shift", "slice"),
        ("--shift", "conv", "--batch", 3),
        ("--shift", "pad", "--precision", "fp16"),
        ("--shift-semantics", "inplace", "--input", "uint8", "--batch", 1, "--precision", "fp16"),
        ("--shift-directions", "8", "--answer", "probabilities"),
    ],
    ids=lambda o: " ".join(map(str, o)),
)
def test_other_options_of_an_export_go_together_with_it(
    options: tuple[object, ...], made: Path, tmp_path: Path
) -> None:
    exported(made / "small.pt", *PENDING, "-o", tmp_path / "engine", *options)


# Operators of other networks


@pytest.mark.parametrize("lowering", ["gather", "slice"])
@pytest.mark.parametrize("name", SPECS)
def test_networks_of_every_family_are_translated(name: str, lowering: str, tmp_path: Path) -> None:
    images = save_network(SPECS[name], lowering, tmp_path / "model.onnx")
    _compare(tmp_path, images)


def _compare(place: Path, images: Array) -> None:
    """The package of the model in ``place`` holds what ONNX Runtime computes."""
    import onnxruntime

    translate(place / "model.onnx", place)
    if not (place / WEIGHTS).exists():  # of a graph whose constants all stand in the program, as no network's do
        (place / WEIGHTS).write_bytes(struct.pack("<II56x", 0, 2))
    (expected,) = onnxruntime.InferenceSession(str(place / "model.onnx")).run(None, {"input": images})
    found = RecomputedSession(artifact_scan.inspect(place)).run(images)
    assert found.shape == expected.shape and compare(found, expected).relative_l2 < 2**-20


@pytest.mark.parametrize(
    "nodes",
    [
        *CHAINS,
        [("ReduceSum", ["input", "axis"], {"keepdims": 0}), ("Gemm", ["w", "0", "column"], {"transB": 1})],
        [
            ("ReduceSum", ["input", "axis"], {"keepdims": 0}),
            ("Transpose", ["0"], {}),
            ("Gemm", ["1", "w"], {"transA": 1}),
        ],
        [("Pad", ["input", "pads"], {"mode": "edge"}), ("Sigmoid", ["0"], {})],
    ],
    ids=lambda nodes: " ".join(operator for operator, *_ in nodes),
)
def test_other_operators_compute_the_same(nodes: Nodes, tmp_path: Path) -> None:
    _compare(tmp_path, save_chain(nodes, tmp_path / "model.onnx"))


NOT_TRANSLATED: dict[str, Nodes] = {
    **REFUSED,
    r"y \(Slice\): it takes some images": [("Slice", ["input", "zero", "fixed1", "zero"], {})],
    r"y \(Cast\): it is to another type": [("Cast", ["input"], {"to": TensorProto.INT32})],
}


@pytest.mark.parametrize("said", NOT_TRANSLATED)
def test_an_operator_that_cannot_be_translated_is_refused_by_name(said: str, tmp_path: Path) -> None:
    save_chain(NOT_TRANSLATED[said], tmp_path / "model.onnx")
    with pytest.raises(CompilerError, match=said):
        translate(tmp_path / "model.onnx", tmp_path)


def test_every_operator_that_is_read_is_recomputed() -> None:
    assert READ.keys() == COMPUTED.keys() and {"Conv", "Gemm", "Gather"} <= EMITTERS.keys()


# What cannot be


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dynamic-size",), "leave out --dynamic-size"),
        (("--answer", "top5"), "expected logits or probabilities"),
        (("--input", "image"), "expected float or uint8"),
        (("--input", "uint8"), "Core ML takes one image at a time, so add --batch 1"),
        (("--precision", "bf16"), "expected fp32 or fp16 or int8w"),
        (("-O", "compute_units=gpu"), "--compute-units 'gpu': expected 'all', 'cpu'"),
    ],
    ids=str,
)
def test_what_it_does_not_have_is_refused(made: Path, tmp_path: Path, options: tuple[object, ...], said: str) -> None:
    ran = run("export", made / "small.pt", *PENDING, *options, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "") and said in ran.err
    assert list(tmp_path.iterdir()) == []


def test_several_images_that_are_images_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["input"], ["y"], to=TensorProto.FLOAT)
    model = graph_of(node, shape=(2, 4, 6, 3))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="one image at a time"):
        translate(tmp_path / "model.onnx", tmp_path)


def test_numbers_that_are_off_are_not_published(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = RecomputedSession.run
    monkeypatch.setattr(RecomputedSession, "run", lambda self, images: compute(self, images) * np.float32(1.0001))
    ran = run("export", made / "onnx-fp32", *PENDING, "-o", tmp_path / "engine")
    assert (ran.code, ran.out) == (1, "") and "relative L2" in ran.err and list(tmp_path.iterdir()) == []


def test_a_weight_that_was_written_wrongly_is_not_published(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights that are read back count, not those that were to be written."""
    whole = exporter.translate

    def damaged(path: Path, destination: Path) -> None:
        whole(path, destination)
        weights = bytearray((destination / WEIGHTS).read_bytes())
        weights[131] ^= 0x40  # the exponent of the first weight
        (destination / WEIGHTS).write_bytes(weights)

    monkeypatch.setattr(exporter, "translate", damaged)
    ran = run("export", made / "onnx-fp32", *PENDING, "-o", tmp_path / "engine")
    assert ran.code == 1 and list(tmp_path.iterdir()) == []


def test_without_the_package_the_way_on_is_told(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "find_spec", lambda name: None)
    ran = run("export", made / "onnx-fp32", *PENDING, "-o", tmp_path / "engine")
    assert (ran.code, ran.out) == (4, "") and REMEDY in ran.err and list(tmp_path.iterdir()) == []
    monkeypatch.setattr("s2mlp_exporters.coreml.toolkit.import_module", _missing)
    ran = run("verify", made / "coreml-fp32")
    assert ran.code == 4 and REMEDY in ran.err


def _missing(name: str) -> None:
    raise ImportError(f"No module named {name!r}")


# A Mac, by a fake of Core ML that recomputes the package it is given


class FakeCoreMl:
    """Stands for coremltools' class; ``broken`` is its complaint at loading or running, ``factor`` its error."""

    broken: str | None = None
    factor = 1.0
    given: Mapping[str, Any] = {}

    def __init__(self, path: str, compute_units: Any) -> None:
        assert Path(path).name == PACKAGE
        if self.broken == "load":
            raise RuntimeError("Error compiling model: \n it is odd")
        FakeCoreMl.units = compute_units.name
        self._program = artifact_scan.inspect(Path(path).parent)

    units = ""

    def predict(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.broken == "run":
            raise RuntimeError("no memory")
        ((name, value),) = given.items()
        if self._program.image:
            assert value.mode == "RGB" and value.size == (28, 20)
            value = np.asarray(value)[None]
        else:
            assert len(value) <= MOST_IMAGES and value.dtype == "float32"
        assert name == "input"
        return {"logits": RecomputedSession(self._program).run(value) * np.float32(self.factor)}


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> type[FakeCoreMl]:
    fake = type("FakeOfThisTest", (FakeCoreMl,), {})
    here = SimpleNamespace(system=lambda: "Darwin", mac_ver=lambda: ("14.5", ("", "", ""), "arm64"))
    monkeypatch.setattr(session, "platform", here)
    monkeypatch.setattr(load().models, "MLModel", fake)
    return fake


@pytest.mark.parametrize("name", ["coreml-fp32", "coreml-fp16", "coreml-int8w", "coreml-image"])
def test_verification_on_a_mac_completes_the_check(made: Path, mac: type[FakeCoreMl], name: str) -> None:
    ran = run("verify", made / name)
    assert ran.code == 0 and "PASSED" in ran.out, ran.err


def test_wrong_numbers_of_a_mac_are_seen(made: Path, mac: type[FakeCoreMl]) -> None:
    mac.factor = 1.001
    ran = run("verify", made / "coreml-fp32")
    assert ran.code == 1 and "FAILED" in ran.out


def test_on_a_mac_a_bundle_is_published_as_passed(made: Path, mac: type[FakeCoreMl], tmp_path: Path) -> None:
    exported(made / "onnx-fp32", "--format", "coreml", "-O", "compute_units=cpu", "-o", tmp_path / "out")
    assert manifest_of(tmp_path / "out")["verdict"] == "passed" and FakeCoreMl.units == "CPU_ONLY"
    same = {name: content for name, content in promised(made / "coreml-fp32").items() if name != "manifest.json"}
    assert same.items() <= promised(tmp_path / "out").items()


def test_a_large_batch_is_run_in_parts(made: Path, mac: type[FakeCoreMl]) -> None:
    one = CoreMlPackage().open(read_bundle(made / "coreml-fp32").artifact)
    images = noise(MOST_IMAGES + 3)
    np.testing.assert_array_equal(one.run(images), recomputed(made / "coreml-fp32").run(images))


@pytest.mark.parametrize(
    ("broken", "said"),
    [("load", "Core ML cannot load .*: it is odd"), ("run", "Core ML cannot run the model .*no memory")],
)
def test_complaints_of_core_ml_are_told(made: Path, mac: type[FakeCoreMl], broken: str, said: str) -> None:
    mac.broken = broken
    with pytest.raises(BundleError, match=said):
        CoreMlPackage().open(read_bundle(made / "coreml-fp32").artifact).run(noise(1))


def test_an_old_mac_is_told(made: Path, mac: type[FakeCoreMl], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.platform, "mac_ver", lambda: ("12.7", ("", "", ""), "arm64"))
    ran = run("verify", made / "coreml-fp32")
    assert ran.code == 4 and "from macOS 13 on, and this is 12.7" in ran.err


@pytest.mark.usefixtures("mac")
class TestOnAMac(FormatConformance):
    """What any format must pass, as a Mac would run it."""

    format = "coreml"

    def run(self, command: str, *arguments: object) -> int:
        return run(command, *arguments).code


# Damage


def change_program(bundle: Path, change: Callable[[Any], object]) -> None:
    """Change the program of ``bundle`` as an object, and its hash in the manifest with it."""
    spec = spec_in(bundle)
    change(spec)
    replace_file(bundle, PROGRAM, spec.SerializeToString(deterministic=True))


def _operation(spec: Any, kind: str) -> Any:
    return next(item for item in block_of(spec).operations if item.type == kind)


def _blob(spec: Any) -> Any:
    """Where the first weights are."""
    return next(
        item.attributes["val"].blobFileValue
        for item in block_of(spec).operations
        if item.type == "const" and item.attributes["val"].HasField("blobFileValue")
    )


def _of(kind: str, **fields: Any) -> Callable[[Any], object]:
    return lambda spec: [setattr(_operation(spec, kind), name, value) for name, value in fields.items()]


HOSTILE: dict[str, Callable[[Any], object]] = {
    "no program of version 7": lambda m: setattr(m, "specificationVersion", 99),
    "no program of version 7 ": lambda m: m.customModel.SetInParent(),
    "other functions than main": lambda m: m.mlProgram.functions["other"].SetInParent(),
    "not of the operators CoreML6": lambda m: setattr(m.mlProgram.functions["main"], "opset", "CoreML9"),
    "'custom_layer' is none that this project writes": _of("gelu", type="custom_layer"),
    "'while_loop' has blocks": lambda m: [
        _of("gelu", type="while_loop")(m),
        _operation(m, "while_loop").blocks.add(),
    ],
    "has an argument 'sneaky'": lambda m: (
        _operation(m, "gelu").inputs["sneaky"].CopyFrom(_operation(m, "gelu").inputs["x"])
    ),
    "not computed before": lambda m: setattr(_operation(m, "gelu").inputs["x"].arguments[0], "name", "logits"),
    "is not one value": lambda m: _operation(m, "gelu").inputs["x"].arguments.add(name="input"),
    "computed more than once": lambda m: setattr(_operation(m, "gelu").outputs[0], "name", "input"),
    "to be read from '@model_path/../../secret'": lambda m: setattr(_blob(m), "fileName", "@model_path/../../secret"),
    "where the file has none": lambda m: setattr(_blob(m), "offset", 2**40),
    "where the file has none ": lambda m: setattr(_blob(m), "offset", 7),
    "are not float32 of the shape": lambda m: setattr(_blob(m), "offset", 128),
    "outputs are not those": lambda m: setattr(m.description.output[0], "name", "other"),
    "an output is not computed": lambda m: block_of(m).outputs.append("nothing"),
    "its input is not what": lambda m: m.description.input[0].type.multiArrayType.shape.__setitem__(1, 4),
    "its input may be missing": lambda m: setattr(m.description.input[0].type, "isOptional", True),
    "has not one input": lambda m: m.description.input.add(name="more"),
    "of a type that none": lambda m: setattr(_operation(m, "gelu").outputs[0].type.tensorType, "dataType", 999),
    "another number of axes": lambda m: setattr(_operation(m, "gelu").outputs[0].type.tensorType, "rank", 77),
    "a shape that none has": lambda m: setattr(
        _operation(m, "gelu").outputs[0].type.tensorType.dimensions[1].constant, "size", 2**50
    ),
}


@pytest.mark.parametrize("said", HOSTILE)
def test_a_program_that_could_do_more_than_compute_is_refused_before_it_is_loaded(
    said: str, package: Path, mac: type[FakeCoreMl], monkeypatch: pytest.MonkeyPatch
) -> None:
    change_program(package, HOSTILE[said])
    monkeypatch.setattr(exporter, "CoreMlSession", None)
    ran = run("verify", package)
    assert (ran.code, ran.out) == (3, "") and said.strip() in ran.err and "No export writes that" in ran.err


def _beside(package: Path) -> None:
    (package / PACKAGE / "Data" / "com.apple.CoreML" / "FeatureDescriptions.json").write_text("{}")


def _elsewhere(package: Path) -> None:
    (package / PACKAGE / "Data" / "more").symlink_to("/")


def _linked_directory(package: Path) -> None:
    data = package / PACKAGE / "Data"
    data.rename(package.parent / "Data")
    data.symlink_to(package.parent / "Data")


PACKAGES: dict[str, Callable[[Path], object]] = {
    "FeatureDescriptions.json, which no package has": _beside,
    "more, which no package has": _elsewhere,
    "is missing (or not a plain file)": _linked_directory,
    "its table of contents is another": lambda bundle: replace_file(bundle, CONTENTS, b"{}"),
    "it cannot be read": lambda bundle: replace_file(bundle, PROGRAM, b"\xff" * 90),
    "no program of version 7": lambda bundle: replace_file(bundle, PROGRAM, b""),
    "its file of weights has no header": lambda bundle: replace_file(bundle, WEIGHTS, b"short"),
    "has another version": lambda bundle: replace_file(bundle, WEIGHTS, bytes(5000)),
    "do not lie behind": lambda bundle: replace_file(bundle, WEIGHTS, (bundle / WEIGHTS).read_bytes()[:-100]),
    "engine: compute_units": lambda bundle: change_manifest(bundle, lambda m: m["engine"].update(compute_units="gpu")),
}


@pytest.mark.parametrize("said", PACKAGES)
def test_a_package_that_was_changed_is_refused(
    said: str, package: Path, mac: type[FakeCoreMl], monkeypatch: pytest.MonkeyPatch
) -> None:
    PACKAGES[said](package)
    monkeypatch.setattr(exporter, "CoreMlSession", None)
    ran = run("verify", package)
    assert (ran.code, ran.out) == (3, "") and said in ran.err


def test_weights_that_overlap_or_claim_more_than_there_is_are_refused(made: Path, tmp_path: Path) -> None:
    whole = (made / "coreml-fp32" / WEIGHTS).read_bytes()
    for place, value in ((72, 2**40), (80, 64), (68, 9), (64, 1)):  # size, start, type, sentinel
        changed = bytearray(whole)
        changed[place : place + 4] = (value % 2**32).to_bytes(4, "little")
        changed[place + 4 : place + 8] = (
            (value >> 32).to_bytes(4, "little") if place in (72, 80) else changed[place + 4 : place + 8]
        )
        (tmp_path / "weight.bin").write_bytes(changed)
        with pytest.raises(Exception, match="the weights at 64"):
            WeightFile(tmp_path / "weight.bin").array(64, (13, 3, 4, 4), "float32")


def test_a_program_that_cannot_be_computed_is_told(package: Path) -> None:
    """Shapes are stated in the program; where they do not fit one another, computing fails, not the process."""
    change_program(
        package, lambda m: _operation(m, "linear").inputs["x"].arguments.__getitem__(0).__setattr__("name", "input")
    )
    with pytest.raises(BundleError, match="cannot be computed"):
        recomputed(package).run(noise(1))


def test_formats_list_it() -> None:
    assert "coreml" in registry.names() and registry.find("coreml").open.__annotations__["return"] == "CoreMlSession"
    assert not hasattr(CoreMlSession, "trace")
