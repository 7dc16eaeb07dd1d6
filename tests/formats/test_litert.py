"""``--format litert``: files written operator by operator hold the numbers in LiteRT's interpreter; what cannot be is refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
import onnx
import pytest
import torch
from flatbuffers.table import Table
from onnx import TensorProto

from helpers.formats import change_manifest, exported, manifest_of, noise, promised, replace_file
from helpers.mixers import lucidrains_mixer
from helpers.support import (
    PAPER_CHECKPOINT,
    TEST_IMAGES,
    run,
    save_checkpoint,
    small_spec,
    v2_spec,
)
from helpers.translated_graphs import CHAINS, REFUSED, SPECS, Nodes, save_chain, save_network
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError, CompilerError, RuntimeMissingError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.schema.array import Array

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")

from s2mlp_exporters.litert import artifact_scan, exporter, session
from s2mlp_exporters.litert.exporter import MODEL, LiteRtModel
from s2mlp_exporters.litert.model_writer import ALIGNMENT, pack
from s2mlp_exporters.litert.schema import REMEDY, load_schema
from s2mlp_exporters.litert.session import LiteRtSession
from s2mlp_exporters.litert.translate import EMITTERS, translate

PRECISIONS = ("fp32", "fp16", "int8w", "int8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx-P``, ``litert-P`` of a small checkpoint, for each precision P."""
    place = tmp_path_factory.mktemp("made")
    checkpoint = save_checkpoint(place / "small.pt", small_spec())
    np.save(place / "calibration.npy", noise(64))
    of_int8 = ("--target", "litert", "--calibration", place / "calibration.npy", "--min-agreement", 0.9)
    for precision in PRECISIONS:
        options = of_int8 if precision == "int8" else ()
        exported(checkpoint, "--precision", precision, *options, "-o", place / f"onnx-{precision}")
        exported(place / f"onnx-{precision}", "--format", "litert", "-o", place / f"litert-{precision}")
    return place


@pytest.fixture
def engine(made: Path, tmp_path: Path) -> Path:
    """A copy of the fp32 model, to be changed."""
    return Path(shutil.copytree(made / "litert-fp32", tmp_path / "engine"))


def session_of(bundle: Path, threads: int | None = None) -> LiteRtSession:
    return LiteRtModel().open_with_threads(read_bundle(bundle).artifact, threads)


def model_in(bundle: Path) -> Any:
    """The file as an object of the schema."""
    schema = load_schema()
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs((bundle / MODEL).read_bytes()))


def operators(bundle: Path) -> list[str]:
    schema, model = load_schema(), model_in(bundle)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
    return [names[model.operatorCodes[o.opcodeIndex].builtinCode] for o in model.subgraphs[0].operators]


# It runs


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_verifies_and_is_one_file(made: Path, precision: str) -> None:
    bundle = made / f"litert-{precision}"
    verified = run("verify", bundle)
    assert verified.code == 0, verified.err
    assert promised(bundle).keys() == {MODEL, "manifest.json", "golden.safetensors"}


def test_from_the_checkpoint_and_from_its_bundle_every_byte_is_the_same(made: Path, tmp_path: Path) -> None:
    exported(made / "small.pt", "--format", "litert", "-o", tmp_path / "out")
    assert promised(tmp_path / "out") == promised(made / "litert-fp32")


@pytest.mark.parametrize(
    "options",
    [
        ("--shift", "slice"),
        ("--shift", "conv", "--batch", 3),
        ("--shift", "pad", "--precision", "fp16"),
        ("--shift-semantics", "inplace", "--input", "uint8"),
        ("--shift-semantics", "inplace", "--shift", "slice"),
        ("--shift-directions", "8", "--answer", "probabilities"),
    ],
    ids=lambda o: " ".join(map(str, o)),
)
def test_other_options_of_an_export_go_together_with_it(
    options: tuple[object, ...], made: Path, tmp_path: Path
) -> None:
    exported(made / "small.pt", "--format", "litert", "-o", tmp_path / "engine", *options)


def test_the_bundled_checkpoint_keeps_its_accuracy(tmp_path: Path) -> None:
    exported(PAPER_CHECKPOINT, "--format", "litert", "--data", TEST_IMAGES, "-o", tmp_path / "engine")
    report = json.loads((tmp_path / "engine" / "report.json").read_text())
    assert report["images"]["accuracy"] == report["images"]["accuracy_pytorch"] == 0.895


def test_one_file_takes_any_batch_on_any_number_of_threads(made: Path) -> None:
    reference = registry.find("onnx").open(read_bundle(made / "onnx-fp32").artifact)
    for threads in (None, 1, 2):
        one = session_of(made / "litert-fp32", threads)
        for count in (1, 5, 2):
            np.testing.assert_allclose(one.run(noise(count)), reference.run(noise(count)), rtol=0, atol=1e-5)


def test_logits_stay_when_the_session_runs_again(made: Path) -> None:
    one = session_of(made / "litert-fp32")
    first = one.run(noise(2))
    kept = first.copy()
    one.run(noise(2, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_layers_can_be_seen(made: Path) -> None:
    ran = run("verify", made / "litert-fp32", "--per-block", "--json")
    layers = {name: found["relative_l2"] for name, found in ran.json["layers"].items()}
    assert list(layers) == ["stage0/embedding", "stage0/block00", "stage0/block01", "logits"]
    assert all(0 < distance < 1e-6 for distance in layers.values()) and ran.json["diverges_at"] is None
    with pytest.raises(BundleError, match="has no value called nothing"):
        session_of(made / "litert-fp32").trace(noise(1), ("nothing",))


def test_nothing_is_loaded_that_only_other_tools_of_the_package_need(made: Path) -> None:
    code = "import sys; from pathlib import Path; from s2mlp_exporters.litert.session import LiteRtSession"
    code += f"; LiteRtSession(Path({str(made / 'litert-fp32' / MODEL)!r}), ''); print({{'tqdm', 'torch', 'onnxruntime'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


# The file


def test_operators_are_those_that_processors_run_fast(made: Path) -> None:
    """One product a layer, one operator a GELU, and no transposition behind the one that puts channels last."""
    found = operators(made / "litert-fp32")
    assert [found.count(name) for name in ("FULLY_CONNECTED", "GELU", "CONV_2D", "TRANSPOSE")] == [9, 4, 1, 1]
    assert found.count("GATHER") == 8 and found.index("TRANSPOSE") < found.index("CONV_2D")


def test_bytes_with_channels_last_need_no_transposition(made: Path, tmp_path: Path) -> None:
    exported(made / "small.pt", "--format", "litert", "--input", "uint8", "--shift", "slice", "-o", tmp_path / "engine")
    found = operators(tmp_path / "engine")
    assert "TRANSPOSE" not in found and "GATHER" not in found and found[0] == "CAST"


def test_weights_keep_their_type_and_are_aligned(made: Path) -> None:
    types = load_schema().TensorType
    for precision, kind, name in (
        ("fp32", types.FLOAT32, b".weight"),
        ("fp16", types.FLOAT16, b".weight"),
        ("int8w", types.INT8, b"/weight_q"),
    ):
        content = (made / f"litert-{precision}" / MODEL).read_bytes()
        model = load_schema().Model.GetRootAs(content)
        graph = model.Subgraphs(0)
        tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        matrices = [t for t in tensors if t.Name().endswith(name) and t.ShapeLength() == 2]
        assert len(matrices) == 9 and {t.Type() for t in matrices} == {kind}
        for tensor in matrices:
            data = model.Buffers(tensor.Buffer()).DataAsNumpy()
            assert (data.ctypes.data - np.frombuffer(content, np.uint8).ctypes.data) % ALIGNMENT == 0


def test_bytes_are_multiplied_with_a_scale_for_each_row(made: Path) -> None:
    """LiteRT reads the ONNX graph's bytes and scales, and rounds the rows of activations, too: otherwise than ONNX Runtime."""
    graph = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(made / "onnx-int8w" / "model.onnx").graph.initializer
    }
    layers = [t for t in _tensors(model_in(made / "litert-int8w")) if t.name.endswith(b"/weight_q")]
    for tensor in layers:
        name = tensor.name.decode().removesuffix("_q")
        np.testing.assert_array_equal(tensor.quantization.scale, graph[f"{name}_scale"])
    reference = registry.find("onnx").open(read_bundle(made / "onnx-int8w").artifact).run(noise(8))
    distance = compare(session_of(made / "litert-int8w").run(noise(8)), reference).relative_l2
    assert len(layers) == 9 and 1e-4 < distance < 0.03


def test_products_of_bytes_read_and_write_bytes_that_the_shift_moves(made: Path) -> None:
    """By LiteRT's specification of quantization, with the graph's own bytes, scales and zero points."""
    graph = onnx.load(made / "onnx-int8" / "model.onnx").graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    model, schema = model_in(made / "litert-int8"), load_schema()
    tensors, found = _tensors(model), operators(made / "litert-int8")
    layers = [o for o, name in zip(_operators(model), found, strict=True) if name == "FULLY_CONNECTED"][:-1]
    assert len(layers) == 8 and found.count("QUANTIZE") == found.count("DEQUANTIZE") == 8
    for x, weight, bias, y in ([tensors[i] for i in (*o.inputs, *o.outputs)] for o in layers):
        name = weight.name.decode().removesuffix("/weight_q")
        assert [t.type for t in (x, weight, bias, y)] == [
            getattr(schema.TensorType, kind) for kind in ("INT8", "INT8", "INT32", "INT8")
        ]
        for tensor, key in ((x, "x"), (weight, "weight"), (y, "y")):
            np.testing.assert_array_equal(tensor.quantization.scale, constants[f"{name}/{key}_scale"])
            np.testing.assert_array_equal(tensor.quantization.zeroPoint, constants[f"{name}/{key}_zero_point"])
        np.testing.assert_array_equal(bias.quantization.scale, weight.quantization.scale * x.quantization.scale)
        assert not any(bias.quantization.zeroPoint)
    moved = [tensors[o.outputs[0]] for o, name in zip(_operators(model), found, strict=True) if name == "GATHER"]
    assert {t.type for t in moved} == {schema.TensorType.INT8} and all(t.quantization.scale for t in moved)


@pytest.mark.parametrize("shift", ["slice", "conv", "pad"])
def test_bytes_give_what_their_graph_gives_with_ends_in_int8_too(shift: str, made: Path, tmp_path: Path) -> None:
    options = ("--calibration", made / "calibration.npy", "--min-agreement", 0.9, "--quantize-ends", "--shift", shift)
    exported(made / "small.pt", "--precision", "int8", "--target", "litert", *options, "-o", tmp_path / "onnx")
    exported(tmp_path / "onnx", "--format", "litert", "-o", tmp_path / "litert")
    reference = registry.find("onnx").open(read_bundle(tmp_path / "onnx").artifact).run(noise(8))
    assert compare(session_of(tmp_path / "litert").run(noise(8)), reference).relative_l2 < 0.01
    found = operators(tmp_path / "litert")
    assert found[:2] == ["QUANTIZE", "TRANSPOSE"] and found[-2:] == ["FULLY_CONNECTED", "DEQUANTIZE"]


def test_int8_of_a_checkpoint_is_for_litert_and_of_other_targets_is_refused(made: Path, tmp_path: Path) -> None:
    options = ("--precision", "int8", "--calibration", made / "calibration.npy", "--min-agreement", 0.9)
    exported(made / "small.pt", "--format", "litert", *options, "-o", tmp_path / "engine")
    assert promised(tmp_path / "engine") == promised(made / "litert-int8")
    for target, at in (("arm", made / "small.pt"), ("litert", made / "small.pt")):
        format = "litert" if target == "arm" else "ort"
        ran = run("export", at, "--format", format, *options, "--target", target, "-o", tmp_path / "out")
        assert (ran.code, ran.out) == (2, "") and f"does not take int8 graphs for --target {target}" in ran.err
    exported(made / "small.pt", *options, "--target", "arm", "-o", tmp_path / "arm")
    ran = run("export", tmp_path / "arm", "--format", "litert", "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "") and "is quantized for arm" in ran.err and "--target litert" in ran.err
    with pytest.raises(CompilerError, match="reads integers and gives floats"):
        translate(tmp_path / "arm" / "model.onnx")


def test_the_file_stands_alone_with_names_preprocessing_and_checkpoint(made: Path) -> None:
    described = session_of(made / "litert-fp32").describe()
    assert [(e.name, e.shape) for e in (*described.inputs, *described.outputs)] == [
        ("input", ("any", 3, 20, 28)),
        ("logits", ("any", 7)),
    ]
    assert json.loads(described.metadata["s2mlp.preprocessing"])["mean"] == [0.5, 0.5, 0.5]
    assert described.metadata["s2mlp.checkpoint_sha256"] == manifest_of(made / "litert-fp32")["source"]["sha256"]
    interpreter = load_interpreter()(str(made / "litert-fp32" / MODEL))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["input"], "outputs": ["logits"]}}


def load_interpreter() -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter


def test_what_it_takes_to_load_it_is_in_the_manifest(made: Path) -> None:
    manifest, here = manifest_of(made / "litert-fp32"), version("ai-edge-litert")
    assert manifest["engine"] == {"runtime": "litert", "runtime_version": here}
    assert (manifest["format"], manifest["artifact"], manifest["versions"]["ai-edge-litert"]) == ("litert", MODEL, here)


def test_the_runtime_prints_nothing(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session_of(made / "litert-fp32").run(noise(1))
    assert capfd.readouterr() == ("", "")


# The description for other tools


def described(bundle: Path) -> tuple[Table, Table]:
    """The tables TensorMetadata of the input and the output, by the places of fields in metadata_schema.fbs."""
    model = model_in(bundle)
    (entry,) = [e for e in model.metadata if e.name == b"TFLITE_METADATA"]
    content = bytes(model.buffers[entry.buffer].data)
    assert content[4:8] == b"M001"
    root = Table(content, int.from_bytes(content[:4], "little"))
    assert text(root, 7) == "1.0.0"
    graph = table_in(root, 3)
    return table_in(graph, 2), table_in(graph, 3)


def offset(table: Table, slot: int) -> int:
    found = table.Offset(4 + 2 * slot)
    assert found, f"field {slot} is not set"
    return int(found)


def table_in(table: Table, slot: int) -> Table:
    """The first of the list of tables in field ``slot``."""
    return Table(table.Bytes, table.Indirect(table.Vector(offset(table, slot))))


def table_of(table: Table, slot: int) -> Table:
    return Table(table.Bytes, table.Indirect(table.Pos + offset(table, slot)))


def text(table: Table, slot: int) -> str:
    return str(table.String(table.Pos + offset(table, slot)).decode())


def numbers(table: Table, slot: int) -> list[float]:
    start, count = table.Vector(offset(table, slot)), table.VectorLen(offset(table, slot))
    return np.frombuffer(table.Bytes, "<f4", count, start).tolist()


def byte(table: Table, slot: int) -> int:
    return int(table.Bytes[table.Pos + offset(table, slot)])


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``float`` and ``uint8`` inputs of the bundled checkpoint, whose classes have names."""
    place = tmp_path_factory.mktemp("named")
    for kind in ("float", "uint8"):
        exported(
            PAPER_CHECKPOINT, "--format", "litert", "--input", kind, "--shift-semantics", "paper", "-o", place / kind
        )
    return place


def test_tools_of_android_find_labels_and_normalization_in_the_file(named: Path) -> None:
    """As the Task Library and MediaPipe read them: normalization is by pixels of 0 to 255; bytes are taken as they are."""
    x, y = described(named / "float")
    normalization = table_of(table_in(x, 4), 1)
    np.testing.assert_allclose(numbers(normalization, 0), [0.286 * 255] * 3, rtol=1e-6)
    np.testing.assert_allclose(numbers(normalization, 1), [0.353 * 255] * 3, rtol=1e-6)
    assert (text(x, 0), text(y, 0), byte(table_of(x, 3), 0)) == ("input", "logits", FEATURES)
    assert (text(table_in(y, 6), 0), byte(table_in(y, 6), 2)) == ("labels.txt", AXIS_LABELS)
    x, _ = described(named / "uint8")
    normalization, content = table_of(table_in(x, 4), 1), table_of(x, 3)
    assert (numbers(normalization, 0), numbers(normalization, 1)) == ([0.0], [1.0])
    assert (byte(content, 0), byte(table_of(content, 1), 0)) == (IMAGE, RGB)
    for kind in ("float", "uint8"):
        with ZipFile(named / kind / MODEL) as archive:
            assert archive.namelist() == ["labels.txt"] and archive.testzip() is None
            assert archive.read("labels.txt").decode().splitlines() == manifest_of(named / kind)["labels"]


FEATURES, IMAGE, RGB, AXIS_LABELS = 1, 2, 1, 2


def test_classes_without_names_have_no_file_of_labels(made: Path) -> None:
    _, y = described(made / "litert-fp32")
    assert text(y, 0) == "logits" and not y.Offset(4 + 2 * 6)
    assert not is_zipfile(made / "litert-fp32" / MODEL)


def test_a_label_of_several_lines_is_refused(made: Path, tmp_path: Path) -> None:
    graph = onnx.load(made / "onnx-fp32" / "model.onnx")
    (entry,) = [entry for entry in graph.metadata_props if entry.key == "s2mlp.labels"]
    entry.value = json.dumps(["a", "b\nc", *"defgh"])
    onnx.save(graph, tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=r"the label 'b\\nc' goes over several lines"):
        translate(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"names of the classes", b"names of the clashes", "its description for other tools is not that of the model"),
        (b"Trouser\n", b"Trousers", "its archive of labels is not that of the model"),
        (b"PK\x05\x06", b"PK\x05\x05", "its archive of labels is not that of the model"),
    ],
)
def test_a_description_or_labels_of_another_model_are_refused(
    old: bytes, new: bytes, said: str, named: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(named / "float", tmp_path / "engine"))
    content = (bundle / MODEL).read_bytes()
    assert content.count(old) == 1
    replace_file(bundle, MODEL, content.replace(old, new))
    ran = run("verify", bundle)
    assert (ran.code, ran.out) == (3, "") and said in ran.err


# Operators of other networks


@pytest.mark.parametrize("lowering", ["gather", "slice"])
@pytest.mark.parametrize("name", SPECS)
def test_networks_of_every_family_are_translated(name: str, lowering: str, tmp_path: Path) -> None:
    """An MLP-Mixer has products whose constant is on the left, on tokens that are ordered by position first."""
    images = save_network(SPECS[name], lowering, tmp_path / "model.onnx")
    _compare(tmp_path / "model.onnx", images)


@pytest.mark.parametrize("family", ["S²-MLPv2", "MLP-Mixer"])
def test_other_families_go_to_every_precision_by_one_command(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All products of an int8 model's blocks read and write bytes: in an MLP-Mixer those over positions, too."""
    monkeypatch.chdir(tmp_path)
    if family == "MLP-Mixer":
        torch.save(lucidrains_mixer().state_dict(), tmp_path / "net.pt")
        options: tuple[object, ...] = ("--image-size", "20x28", "--mean", "0.5", "--std", "0.5")
    else:
        save_checkpoint(tmp_path / "net.pt", v2_spec("one stage"))
        options = ("--shift-semantics", "paper")
    np.save(tmp_path / "calibration.npy", noise(64))
    wanted = [word for precision in PRECISIONS for word in ("--precision", precision)]
    of_int8 = ("--calibration", tmp_path / "calibration.npy", "--min-agreement", 0.9)
    ran = run("export", tmp_path / "net.pt", "--format", "litert", *wanted, *options, *of_int8)
    assert ran.code == 0, ran.err
    for precision in PRECISIONS:
        verified = run("verify", tmp_path / f"net-litert-{precision}")
        assert verified.code == 0, verified.err
    quantization = manifest_of(tmp_path / "net-litert-int8")["quantization"]
    layers = {"MLP-Mixer": 8, "S²-MLPv2": 8}[family]
    found = operators(tmp_path / "net-litert-int8")
    assert (quantization["target"], quantization["float_layers"]) == ("litert", [])
    assert found.count("QUANTIZE") == found.count("DEQUANTIZE") == layers


def _compare(path: Path, images: Array) -> None:
    """LiteRT computes what ONNX Runtime does of the model at ``path``."""
    import onnxruntime

    file = path.with_suffix(".tflite")
    file.write_bytes(translate(path)[0])
    artifact_scan.inspect(file)
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"input": images})
    found = LiteRtSession(file, "").run(images)
    assert found.shape == expected.shape and compare(found, expected).relative_l2 < 2**-20


@pytest.mark.parametrize(
    "nodes",
    [
        *CHAINS,
        [("Transpose", ["input"], {"perm": [0, 2, 1]}), ("Add", ["0", "column"], {})],
        [("ReduceSum", ["input", "axis"], {"keepdims": 1}), ("Expand", ["0", "rows"], {})],
    ],
    ids=lambda nodes: " ".join(operator for operator, *_ in nodes),
)
def test_other_operators_compute_the_same(nodes: Nodes, tmp_path: Path) -> None:
    _compare(tmp_path / "model.onnx", save_chain(nodes, tmp_path / "model.onnx"))


NOT_TRANSLATED: dict[str, Nodes] = {
    **REFUSED,
    r"y \(Expand\): it copies images": [("Expand", ["input", "two"], {})],
    r"y \(Cast\): it is to another type": [("Cast", ["input"], {"to": TensorProto.FLOAT16})],
}


@pytest.mark.parametrize("said", NOT_TRANSLATED)
def test_an_operator_that_cannot_be_translated_is_refused_by_name(said: str, tmp_path: Path) -> None:
    save_chain(NOT_TRANSLATED[said], tmp_path / "model.onnx")
    with pytest.raises(CompilerError, match=said):
        translate(tmp_path / "model.onnx")


def test_the_scan_knows_every_operator_that_is_written() -> None:
    """What a translation can write is accepted, by name; ONNX operators have one emitter each."""
    known = vars(load_schema().BuiltinOperator)
    assert artifact_scan.OPERATORS.keys() <= known.keys() and {"Conv", "Gemm", "Gather"} <= EMITTERS.keys()


# What cannot be


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dynamic-size",), "leave out --dynamic-size"),
        (("--answer", "top5"), "expected logits or probabilities"),
        (("--input", "image"), "expected float or uint8"),
        (("--precision", "bf16"), "expected fp32 or fp16 or int8 or int8w"),
        (("--provider", "cpu"), "--provider"),
    ],
    ids=str,
)
def test_what_it_does_not_have_is_refused(made: Path, tmp_path: Path, options: tuple[object, ...], said: str) -> None:
    ran = run("export", made / "small.pt", "--format", "litert", *options, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "") and said in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_model_beyond_the_formats_size_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "LIMIT_BYTES", 1000)
    ran = run("export", made / "onnx-fp32", "--format", "litert", "-o", tmp_path / "out")
    assert ran.code == 2 and "a .tflite file can hold" in ran.err and list(tmp_path.iterdir()) == []


def test_numbers_that_are_off_are_not_published(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_as_it_is = LiteRtSession.run
    monkeypatch.setattr(LiteRtSession, "run", lambda self, images: run_as_it_is(self, images) * np.float32(1.0001))
    ran = run("export", made / "onnx-fp32", "--format", "litert", "-o", tmp_path / "engine")
    assert (ran.code, ran.out) == (1, "") and "relative L2" in ran.err and list(tmp_path.iterdir()) == []


def test_an_input_that_does_not_fit_is_told(made: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot run the model on an input of \[2, 2, 20, 28\]"):
        session_of(made / "litert-fp32").run(noise(2)[:, :2])


def test_without_the_package_the_way_on_is_told(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "find_spec", lambda name: None)
    shown = " ".join(run("doctor").out.split())
    assert f"run and verify litert bundles: this needs the package ai-edge-litert: {REMEDY}" in shown
    ran = run("export", made / "onnx-fp32", "--format", "litert", "-o", tmp_path / "engine")
    assert (ran.code, ran.out) == (4, "") and REMEDY in ran.err and list(tmp_path.iterdir()) == []
    monkeypatch.setattr("s2mlp_exporters.litert.schema.import_module", _missing)
    ran = run("verify", made / "litert-fp32")
    assert ran.code == 4 and REMEDY in ran.err


def _missing(name: str) -> None:
    raise ImportError(f"No module named {name!r}")


# Damage


def _later_operator(model: Any) -> None:
    model.operatorCodes[0].version = 99


def test_a_runtime_that_is_older_than_the_file_is_told(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the versions of both, where a later release of this project writes an operator that this one knows."""
    change_model(engine, _later_operator)
    monkeypatch.setattr(
        artifact_scan, "OPERATORS", {name: (99, inputs) for name, (_, inputs) in artifact_scan.OPERATORS.items()}
    )
    ran = run("verify", engine)
    assert ran.code == 4 and "does not have an operator of" in ran.err and "install that version" in ran.err


def change_model(bundle: Path, change: Callable[[Any], object]) -> None:
    """Change the file of ``bundle`` as an object, and its hash in the manifest with it."""
    model = model_in(bundle)
    change(model)
    replace_file(bundle, MODEL, bytes(pack(model)))


def _tensors(model: Any) -> Any:
    return model.subgraphs[0].tensors


def _operators(model: Any) -> Any:
    return model.subgraphs[0].operators


def _weights(model: Any) -> Any:
    """The classifier's."""
    return _tensors(model)[_operators(model)[-1].inputs[1]]


def _in_one_byte(model: Any) -> None:
    """Give the classifier's weights another shape in a file that numbers operators in the deprecated field alone, where that can."""
    for code in model.operatorCodes:
        code.builtinCode = 0 if code.builtinCode < 127 else code.builtinCode
    _weights(model).shape = np.int32([13, 7])


def _scaled(model: Any, scale: float, zero_point: int) -> None:
    """Give the classifier's weights a scale."""
    made = load_schema().QuantizationParametersT(scale=np.float32([scale]), zeroPoint=np.int64([zero_point]))
    _weights(model).quantization = made


HOSTILE: dict[str, Callable[[Any], object]] = {
    "has another version of the format": lambda m: setattr(m, "version", 2),
    "or more than one graph": lambda m: m.subgraphs.append(m.subgraphs[0]),
    "is none that this project writes": lambda m: setattr(m.operatorCodes[0], "builtinCode", 118),  # IF
    "is none that this project writes ": lambda m: setattr(m.operatorCodes[0], "customCode", "FlexWriteFile"),
    "scales, and its shape takes others": lambda m: setattr(
        _weights(m),
        "quantization",
        load_schema().QuantizationParametersT(scale=np.float32([1, 1]), zeroPoint=np.int64([0, 0])),
    ),
    "has no scales, and its type takes some": lambda m: setattr(_tensors(m)[0], "type", 9),  # INT8
    "has a scale or a zero point that none has": lambda m: _scaled(m, scale=0.0, zero_point=0),
    "has a scale or a zero point that none has ": lambda m: _scaled(m, scale=1.0, zero_point=300),
    "is of version 99": _later_operator,
    "weights outside of its tables": lambda m: setattr(m.buffers[3], "offset", 8),
    "has a type or a shape": lambda m: setattr(_tensors(m)[0], "shape", np.int32([1, 3, 2**20, 2**20])),
    "has a type or a shape ": lambda m: setattr(_tensors(m)[0], "type", 5),  # STRING
    "two shapes that do not agree": lambda m: setattr(_tensors(m)[0], "shapeSignature", np.int32([-1, 4, 20, 28])),
    "is kept from run to run": lambda m: setattr(_tensors(m)[0], "isVariable", True),
    "refers to the buffer 999": lambda m: setattr(_tensors(m)[0], "buffer", 999),
    "bytes, and its shape takes others": lambda m: setattr(m.buffers[3], "data", np.zeros(3, np.uint8)),
    "refers to the operator 999": lambda m: setattr(_operators(m)[0], "opcodeIndex", 999),
    "not computed before": lambda m: setattr(_operators(m)[0], "inputs", np.int32([999, 1])),
    "not computed before ": lambda m: _operators(m).reverse(),
    "refers to the tensor -7": lambda m: setattr(_operators(m)[0], "outputs", np.int32([-7])),
    "written more than once": lambda m: setattr(_operators(m)[1], "outputs", _operators(m)[0].outputs),
    "has options that none": lambda m: setattr(_operators(m)[0], "customOptions", np.zeros(4, np.uint8)),
    "FULLY_CONNECTED has not the inputs": lambda m: setattr(_operators(m)[-1], "inputs", _operators(m)[-1].inputs[:2]),
    "RESHAPE has not the inputs": lambda m: setattr(_operators(m)[2], "inputs", np.int32([5, -1])),
    "TRANSPOSE has not the inputs": lambda m: setattr(_operators(m)[0], "outputs", np.int32([2, 5])),
    "a tensor has no name": lambda m: setattr(_tensors(m)[3], "name", ""),
    "it cannot be read": lambda m: setattr(_tensors(m)[3], "name", b"\xff\xfe"),
    "metadata have no name": lambda m: setattr(m.metadata[0], "name", None),
    "metadata have no name, or say nothing": lambda m: setattr(m.buffers[m.metadata[0].buffer], "data", None),
    "its signature has no names": lambda m: setattr(m.signatureDefs[0].inputs[0], "name", None),
    "a layer has weights of another shape": lambda m: setattr(_weights(m), "shape", np.int32([13, 7])),
    "a layer has weights of another shape ": _in_one_byte,
    "an output is not computed": lambda m: setattr(m.subgraphs[0], "outputs", np.int32([10**6])),
    "refers to the buffer 888": lambda m: setattr(m.metadata[0], "buffer", 888),
}


@pytest.mark.parametrize("said", HOSTILE)
def test_a_file_that_could_do_more_than_compute_is_refused_before_it_is_loaded(
    said: str, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_model(engine, HOSTILE[said])
    monkeypatch.setattr(session, "LiteRtSession", None)
    ran = run("verify", engine)
    assert (ran.code, ran.out) == (3, "") and said.strip() in ran.err and "No export writes that" in ran.err


@pytest.mark.parametrize(
    "change",
    [
        lambda x: b"",
        lambda x: b"garbage",
        lambda x: bytes(5000),
        lambda x: x[: len(x) // 2],
        lambda x: b"\xff" * 4 + b"TFL3" + b"\xff" * 100,
    ],
    ids=["empty", "garbage", "zeros", "cut", "places that lead nowhere"],
)
def test_a_file_that_is_no_model_is_told_quietly(
    engine: Path, change: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    replace_file(engine, MODEL, change((engine / MODEL).read_bytes()))
    ran = run("verify", engine)
    assert (ran.code, ran.out) == (3, "") and f"cannot load the model {engine / MODEL}" in ran.err
    assert capfd.readouterr() == ("", "")


def test_a_model_that_litert_refuses_is_told(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the scan lets it pass."""
    change_model(engine, lambda m: setattr(_weights(m), "shape", np.int32([13, 7])))
    monkeypatch.setattr(artifact_scan, "_PRODUCTS", {})
    ran = run("verify", engine)
    assert (ran.code, ran.out) == (3, "") and "LiteRT cannot" in ran.err


@pytest.mark.parametrize(
    ("entry", "said"),
    [({"runtime": "onnxruntime"}, "runtime 'onnxruntime'"), ({"surprise": True}, "surprise True")],
    ids=["runtime", "surprise"],
)
def test_a_damaged_engine_entry_is_a_damaged_bundle(engine: Path, entry: Mapping[str, Any], said: str) -> None:
    change_manifest(engine, lambda m: m["engine"].update(entry))
    ran = run("verify", engine)
    assert (ran.code, ran.out) == (3, "") and said in ran.err


def test_the_model_of_another_checkpoint_is_found(engine: Path, tmp_path: Path) -> None:
    exported(
        save_checkpoint(tmp_path / "other.pt", small_spec(), seed=1), "--format", "litert", "-o", tmp_path / "other"
    )
    replace_file(engine, MODEL, (tmp_path / "other" / MODEL).read_bytes())
    ran = run("verify", engine)
    assert ran.code == 3 and "the model was made from another checkpoint" in ran.err


def test_what_cannot_be_loaded_names_both_versions(made: Path, tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"LiteRT .* cannot load the model .*, which was made with 1\.0"):
        LiteRtSession(tmp_path / MODEL, "1.0")
    assert issubclass(CompilerError, RuntimeMissingError)
