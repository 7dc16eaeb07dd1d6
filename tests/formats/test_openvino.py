"""``--format openvino``: models that OpenVINO wrote run in float32, hold the numbers, and tell nobody; what cannot be is refused."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers import formats
from helpers.formats import PRECISIONS, change_manifest, exported, manifest_of, noise, promised, replace_file
from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, command, run, save_checkpoint, small_spec
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError, CompilerError, RuntimeMissingError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.gate.gate import gate
from s2mlp_deploy.gate.io_adapter import ArtifactIo
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import EvidenceOptions, ExportRequest, FormatOptions, OutputOptions, Source
from s2mlp_deploy.quantization.settings import OPTIONS, Int8
from s2mlp_exporters.openvino import exporter
from s2mlp_exporters.openvino.exporter import BIN, LOADING, XML, OpenVinoIr, OpenVinoSession, Settings, load_openvino

pytest.importorskip("openvino", reason="needs openvino")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx-P`` and ``openvino-P`` of a small checkpoint, for each precision P."""
    return formats.make(tmp_path_factory.mktemp("made"), "openvino")


@pytest.fixture
def engine(made: Path, tmp_path: Path) -> Path:
    """A copy of the fp32 model, to be changed."""
    return Path(shutil.copytree(made / "openvino-fp32", tmp_path / "engine"))


def session_of(bundle: Path, threads: int | None = None) -> OpenVinoSession:
    return OpenVinoIr().open_with_threads(read_bundle(bundle).artifact, threads)


# It runs


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_verifies_and_is_an_xml_and_a_bin(made: Path, precision: str) -> None:
    bundle = made / f"openvino-{precision}"
    verified = run("verify", bundle)
    assert verified.code == 0, verified.err
    assert promised(bundle).keys() == {XML, BIN, "manifest.json", "golden.safetensors"}


@pytest.mark.parametrize(
    "options",
    [
        ("--batch", 3),
        ("--batch", 1),
        ("--dynamic-size",),
        ("--dynamic-size", "--precision", "fp16"),
        ("--precision", "fp16", "--io-dtype", "fp16"),
        ("--shift", "conv"),
        ("--shift", "pad", "--dynamic-size"),
        ("--shift-semantics", "inplace", "--shift", "slice"),
        ("--shift-directions", "8"),
    ],
    ids=lambda o: " ".join(map(str, o)),
)
def test_other_options_of_an_export_go_together_with_it(
    options: tuple[object, ...], checkpoint: Path, tmp_path: Path
) -> None:
    exported(checkpoint, "--format", "openvino", "-o", tmp_path / "engine", *options)
    assert run("verify", tmp_path / "engine").code == 0


def test_one_file_takes_any_batch_and_any_size(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("onnx", "openvino"):
        exported(checkpoint, "--format", name, "--dynamic-size", "-o", tmp_path / name)
    graph = read_bundle(tmp_path / "onnx")
    session, reference = session_of(tmp_path / "openvino"), registry.find("onnx").open(graph.artifact)
    for shape in [(1, 3, 20, 28), (5, 3, 4, 8), (2, 3, 36, 12), (1, 3, 20, 28)]:
        images = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(session.run(images), reference.run(images), rtol=0, atol=1e-5)


def test_logits_stay_when_the_session_runs_again(made: Path) -> None:
    session = session_of(made / "openvino-fp32")
    first = session.run(noise(2))
    kept = first.copy()
    session.run(noise(2, seed=1))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_it_runs_on_as_many_threads_as_asked_for(made: Path, threads: int | None) -> None:
    session = session_of(made / "openvino-fp32", threads)
    used = session._request(()).get_compiled_model().get_property("INFERENCE_NUM_THREADS")
    assert used == threads if threads else used >= 1
    assert session.run(noise(3)).shape == (3, 7)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.thorough), "int8"])
def test_the_bundled_checkpoint_keeps_its_accuracy(precision: str, tmp_path: Path) -> None:
    request = ExportRequest(
        Source(PAPER_CHECKPOINT),
        precision=Int8(TEST_IMAGES, max_accuracy_drop=1.0) if precision == "int8" else OPTIONS[precision](),
        format=FormatOptions("openvino"),
        evidence=EvidenceOptions(data=TEST_IMAGES),
        output=OutputOptions(tmp_path / "engine"),
    )
    report = deploy(request).report
    if precision == "int8":
        _graphs, trial = report.trials
        assert trial.passed and abs(trial.float_accuracy - trial.accuracy) < 0.0101
    else:
        assert report.images.accuracy == report.images.accuracy_pytorch == 0.895
    assert run("verify", tmp_path / "engine").code == 0


def test_layers_can_be_seen(made: Path) -> None:
    ran = run("verify", made / "openvino-fp32", "--per-block", "--json")
    layers = {name: found["relative_l2"] for name, found in ran.json["layers"].items()}
    assert list(layers) == ["stage0/embedding", "stage0/block00", "stage0/block01", "logits"]
    assert all(0 < distance < 1e-6 for distance in layers.values()) and ran.json["diverges_at"] is None


def test_it_can_be_timed_against_other_formats(made: Path, tmp_path: Path) -> None:
    bundles, table = [made / f"{name}-fp32" for name in ("onnx", "openvino")], tmp_path / "table.csv"
    options = ("--threads", "1,2", "--min-seconds", 0, "--min-rounds", 8, "--no-cold", "--no-bound", "--csv", table)
    ran = command("s2mlp-bench", "s2mlp_bench.cli", "main", *bundles, *options)
    assert ran.code == 0, ran.err
    with table.open(newline="") as file:
        timed = {line["name"] for line in csv.DictReader(file)}
    assert {"openvino-fp32, 1 thread", "openvino-fp32, 2 threads"} < timed


# In which numbers it computes


def executed(bundle: Path) -> Counter[tuple[str, str]]:
    """How many of OpenVINO's own layers there are, by kind and by the type that they compute in."""
    graph = session_of(bundle)._request(()).get_compiled_model().get_runtime_model()
    infos = [node.get_rt_info() for node in graph.get_ops()]
    kinds = [(i["layerType"].astype(str), i["runtimePrecision"].astype(str)) for i in infos if "layerType" in i]
    return Counter(kind for kind in kinds if kind[0] != "Const")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_everything_is_computed_in_float32(made: Path, precision: str) -> None:
    found = executed(made / f"openvino-{precision}")
    assert found["FullyConnected", "f32"] == 9 and {type for _, type in found} == {"f32"}


def test_int8_layers_are_computed_in_int8_and_all_else_in_float32(made: Path) -> None:
    found = executed(made / "openvino-int8")
    assert found["FullyConnected", "u8"] + found["FullyConnected", "i8"] == 8
    assert found["FullyConnected", "f32"] == 1 and {type for _, type in found} <= {"f32", "u8", "i8"}


@pytest.mark.parametrize("target", ["arm", "trt"])
def test_graphs_of_other_recipes_are_computed_in_int8_too(made: Path, tmp_path: Path, target: str) -> None:
    options = ("--precision", "int8", "--target", target, "--calibration", made / "calibration.npy")
    exported(made / "small.pt", "--format", "openvino", *options, "--min-agreement", 0.9, "-o", tmp_path / "engine")
    found = executed(tmp_path / "engine")
    assert found["FullyConnected", "u8"] + found["FullyConnected", "i8"] == 8


needs_bfloat16 = pytest.mark.skipif(
    "BF16" not in load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this processor does not multiply bfloat16",
)


@needs_bfloat16
def test_left_to_itself_openvino_computes_in_bfloat16_and_that_is_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "LOADING", {"PERFORMANCE_HINT": "LATENCY"})
    ran = run("verify", made / "openvino-fp32")
    assert ran.code == 4 and "computes in bf16 here, although f32 was requested" in ran.err


@needs_bfloat16
def test_bfloat16_would_not_pass_the_gate(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "LOADING", {**LOADING, "INFERENCE_PRECISION_HINT": "bf16"})
    bundle = read_bundle(made / "openvino-fp32")
    wrong = Settings.model_construct(runtime_version="", device="CPU", inference_precision="bf16")
    tolerance = bundle.manifest.tolerance
    assert tolerance is not None
    verdict = gate(
        OpenVinoSession(bundle.artifact.path, wrong), golden_tensors.load(bundle.golden), tolerance, ArtifactIo()
    )
    assert not verdict.passed and max(d.relative_l2 for d in verdict.distances.values()) > 1e-3


def constants(bundle: Path) -> Counter[str]:
    """Bytes of the weights by type, as the file declares them."""
    found = Counter[str]()
    for type, size in re.findall(r'<data element_type="(\w+)" [^>]*size="(\d+)"', (bundle / XML).read_text("utf-8")):
        found[type] += int(size)
    return found


def test_no_weight_changes_its_type_when_it_is_saved(made: Path) -> None:
    full, half, quantized = (constants(made / f"openvino-{precision}") for precision in PRECISIONS)
    assert "f16" not in full and full["f32"] > 0.9 * (made / "openvino-fp32" / BIN).stat().st_size
    # Matrices are kept in float16, biases and scales in float32.
    assert 2 * half["f16"] + half["f32"] == full["f32"] and half["f16"] > 0.9 * full["f32"] / 2
    assert quantized["i8"] > 0.5 * full["f32"] / 4 and "f16" not in quantized


# What the manifest says of it


def test_what_it_takes_to_load_it_is_in_the_manifest(made: Path) -> None:
    manifest = manifest_of(made / "openvino-fp32")
    here = version("openvino")
    assert manifest["engine"] == {
        "runtime": "openvino",
        "runtime_version": here,
        "device": "CPU",
        "inference_precision": "f32",
    }
    assert (manifest["format"], manifest["artifact"], manifest["versions"]["openvino"]) == ("openvino", XML, here)


def test_the_files_stand_alone_with_preprocessing_and_labels(made: Path) -> None:
    model = load_openvino().Core().read_model(made / "openvino-fp32" / XML)
    graph = json.loads(str(model.get_rt_info(["framework", "s2mlp.preprocessing"]).astype(str)))
    assert graph["mean"] == [0.5, 0.5, 0.5]


# Nothing but what the commands say


def alone(home: Path, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose streams hold what libraries print as well."""
    code = f"import sys\nfrom s2mlp_deploy.cli.{command} import main\ntry: main()\nfinally: print([m for m in sys.modules if 'openvino_telemetry' in m], file=sys.stderr)"
    variables = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**variables, "HOME": str(home)},
    )


def test_libraries_print_nothing_and_send_nothing(made: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = alone(home, "export", made / "onnx-int8", "--format", "openvino", "-o", tmp_path / "engine", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "compiling for openvino …",
        "checking int8 parity of the openvino engine with the reference …",
        "[]",
    ]
    assert json.loads(done.stdout)["exports"][0]["passed"] is True
    done = alone(home, "verify", tmp_path / "engine", "--json")
    assert (done.returncode, done.stderr) == (0, "checking the bundle …\n[]\n")
    assert json.loads(done.stdout)["passed"] is True
    assert list(home.iterdir()) == []  # OpenVINO's telemetry would have left an identity there


# Damage


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"device": "GPU"}, "device 'GPU'"),
        ({"inference_precision": "bf16"}, "inference_precision 'bf16'"),
        ({"runtime": "onnxruntime"}, "runtime 'onnxruntime'"),
        ({"runtime_version": 5}, "runtime_version 5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_damaged_engine_entry_is_a_damaged_bundle(engine: Path, entry: Mapping[str, Any], said: str) -> None:
    change_manifest(engine, lambda m: m["engine"].update(entry))
    ran = run("verify", engine)
    assert (ran.code, ran.out) == (3, "")
    (message,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert f"{engine / 'manifest.json'}: engine" in message and said in message and "copy it again" in message


OTHER_NETWORK = b'<?xml version="1.0"?><net name="x" version="11"><layers></layers><edges></edges></net>'


@pytest.mark.parametrize(
    "change",
    [
        lambda x: b"",
        lambda x: b"garbage",
        lambda x: bytes(5000),
        lambda x: x[: len(x) // 2],
        lambda x: b"<?xml no",
        lambda x: re.sub(rb'offset="\d+"', b'offset="99999999999"', x),
    ],
    ids=["empty", "garbage", "zeros", "cut", "no network", "no such place"],
)
def test_a_model_that_openvino_cannot_load_is_told_quietly(
    engine: Path, change: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    replace_file(engine, XML, change((engine / XML).read_bytes()))
    ran = run("verify", engine)
    assert (ran.code, ran.out) == (3, "") and f"cannot load the model {engine / XML}" in ran.err
    assert "Exception from" not in ran.err
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [lambda x: OTHER_NETWORK, lambda x: x.replace(b'names="logits"', b'names="other"')],
    ids=["another network", "no logits"],
)
def test_a_model_of_other_inputs_and_outputs_is_told(engine: Path, change: Callable[[bytes], bytes]) -> None:
    replace_file(engine, XML, change((engine / XML).read_bytes()))
    ran = run("verify", engine)
    assert (ran.code, ran.out) == (3, "") and "does not describe the artifact beside it" in ran.err


@pytest.mark.parametrize("size", [0, 1000])
def test_weights_that_are_cut_short_are_told(engine: Path, size: int) -> None:
    replace_file(engine, BIN, (engine / BIN).read_bytes()[:size])
    ran = run("verify", engine)
    assert ran.code == 3 and "cannot load the model" in ran.err and "beyond the end" in ran.err


@pytest.mark.parametrize("name", [XML, BIN])
def test_the_files_of_another_model_fail_the_gate(engine: Path, tmp_path: Path, name: str) -> None:
    other = save_checkpoint(tmp_path / "other.pt", small_spec(), seed=1)
    semantics = ("--shift-semantics", "inplace") if name == XML else ()
    exported(other, "--format", "openvino", *semantics, "-o", tmp_path / "other")
    replace_file(engine, name, (tmp_path / "other" / name).read_bytes())
    if name == XML:  # the weights go with it
        replace_file(engine, BIN, (tmp_path / "other" / BIN).read_bytes())
    ran = run("verify", engine)
    if name == XML:
        assert ran.code == 3 and "the model was made from another checkpoint" in ran.err
    else:
        assert ran.code == 1 and "FAILED" in ran.out


def test_an_input_that_does_not_fit_is_told(made: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot run the model on an input of \[2, 2, 20, 28\]: .*incompatible"):
        session_of(made / "openvino-fp32").run(noise(2)[:, :2])


def test_numbers_that_are_off_are_not_published(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_as_it_is = OpenVinoSession.run
    monkeypatch.setattr(OpenVinoSession, "run", lambda self, images: run_as_it_is(self, images) * np.float32(1.0001))
    ran = run("export", made / "onnx-fp32", "--format", "openvino", "-o", tmp_path / "engine")
    assert (ran.code, ran.out) == (1, "") and "relative L2" in ran.err
    assert list(tmp_path.iterdir()) == []


# What is not here


@pytest.mark.parametrize("source", ["onnx-fp32", "small.pt"], ids=["bundle", "checkpoint"])
def test_without_openvino_the_way_on_is_told(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    ran = run("export", made / source, "--format", "openvino", "-o", tmp_path / "new" / "engine")
    assert (ran.code, ran.out) == (4, "") and exporter.REMEDY in ran.err
    name = "onnx-fp32" if source == "onnx-fp32" else "engine-onnx-fp32"
    assert f"s2mlp-export {name} --format openvino" in ran.err
    left = list(tmp_path.rglob("*/manifest.json"))
    assert [path.parent.name for path in left] == ([] if source == "onnx-fp32" else ["engine-onnx-fp32"])


def test_a_model_cannot_be_checked_without_openvino(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    ran = run("verify", made / "openvino-fp32")
    assert ran.code == 4 and exporter.REMEDY in ran.err
    with pytest.raises(RuntimeMissingError, match="OpenVINO cannot be loaded"):
        load_openvino()


def test_the_doctor_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "✓ build, run and verify openvino bundles" in run("doctor").out
    monkeypatch.setitem(sys.modules, "openvino", None)
    shown = " ".join(run("doctor").out.split())
    assert f"run and verify openvino bundles: openvino missing. {exporter.REMEDY}" in shown


def with_a_new_operator(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    model.graph.node[-1].op_type = "OfALaterOpset"
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("change", [with_a_new_operator])
def test_a_graph_that_openvino_does_not_take_is_told(
    made: Path, tmp_path: Path, change: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(made / "onnx-fp32", tmp_path / "graph"))
    replace_file(bundle, "model.onnx", change((bundle / "model.onnx").read_bytes()))
    with pytest.raises(CompilerError, match=r"OpenVINO .* cannot take this graph .*install another version"):
        deploy(
            ExportRequest(Source(bundle), format=FormatOptions("openvino"), output=OutputOptions(tmp_path / "engine"))
        )
    assert list(tmp_path.iterdir()) == [bundle] and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("option", [("--provider", "cpu"), ("--opt-level", 1), ("--precision", "bf16")], ids=str)
def test_what_it_does_not_have_is_refused(made: Path, tmp_path: Path, option: tuple[object, ...]) -> None:
    ran = run("export", made / "small.pt", "--format", "openvino", *option, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "") and f"{option[0]}" in ran.err
    assert list(tmp_path.iterdir()) == []
