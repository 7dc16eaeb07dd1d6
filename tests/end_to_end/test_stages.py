"""The second stage: an ONNX bundle becomes an engine without torch, is checked again, or leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers.bare import OPTIONAL, Bare, answer, bare
from helpers.fake_formats import install
from helpers.formats import manifest_of, promised
from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, Ran, run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import AccuracyError, BundleError, ParityError, UsageError
from s2mlp_deploy.pipeline import compile as engine
from s2mlp_deploy.pipeline.deploy import deploy, deploy_all
from s2mlp_deploy.pipeline.request import (
    EvidenceOptions,
    ExportRequest,
    FormatOptions,
    GraphOptions,
    OutputOptions,
    Source,
)
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.schema.manifest import Interface
from s2mlp_exporters.onnxruntime.exporter import OrtModel

PRECISIONS = ("fp32", "fp16", "int8")

COMPILERS = '''
"""Somebody else's compilers: the graph in a file of another name, run by ONNX Runtime, more or less right."""

import hashlib
import json

import numpy as np
import onnxruntime
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.gate import golden
from s2mlp_deploy.bundle.contents import Artifact
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.options import Options

calls = []
"""The bundles and options that compilers were given."""


def digests(images):
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


class SpeedOptions(Options):
    speed: int = 1


class Compiled(Compiler):
    name = "compiled"
    precisions = ("fp32", "fp16", "int8")
    options = SpeedOptions
    modules = ("onnxruntime",)
    install_hint = "pip install onnxruntime"

    def compile(self, bundle, destination, options):
        calls.append((bundle.directory, options.given))
        (destination / "engine.bin").write_bytes(bundle.artifact.path.read_bytes())
        inputs = golden_tensors.load(bundle.golden).inputs.values() if bundle.golden.exists() else ()
        (destination / "golden.json").write_text(json.dumps([d for images in inputs for d in digests(images)]))
        return Artifact(destination, "engine.bin", ("engine.bin", "golden.json"), {"speed": options.speed})

    def inspect(self, bundle):
        refuse_other_files(bundle, "engine.bin", "golden.json")

    def open(self, artifact):
        session = onnxruntime.InferenceSession(artifact.path.read_bytes(), providers=["CPUExecutionProvider"])
        known = set(json.loads((artifact.directory / "golden.json").read_text()))
        return Session(lambda images: self.answer(images, session.run(None, {"input": images})[0], known))

    def answer(self, images, logits, known):
        return logits

    def versions(self):
        return {"fake": "2.0"}


class Session:
    def __init__(self, run):
        self.run = run


class Wrong(Compiled):
    name = "wrong"

    def answer(self, images, logits, known):
        return logits * np.float32(1.5)


class Lossy(Compiled):
    name = "lossy"

    def answer(self, images, logits, known):
        return logits[:, :-1]


class Sly(Compiled):
    name = "sly"
    # Right on the golden inputs alone.
    def answer(self, images, logits, known):
        unknown = np.array([d not in known for d in digests(images)])
        return np.where(unknown[:, None], np.roll(logits, 1, axis=1), logits)


class Messy(Compiled):
    name = "messy"

    def compile(self, bundle, destination, options):
        (destination / "scratch.tmp").write_text("forgotten")
        return super().compile(bundle, destination, options)


class Stopped(Compiled):
    name = "stopped"
    error = KeyboardInterrupt()

    def compile(self, bundle, destination, options):
        (destination / "tactics").mkdir()
        (destination / "tactics" / "half.bin").write_text("half")
        raise self.error


class Homeless(Stopped):
    name = "homeless"
    error = RuntimeMissingError("there is no such device here")


class ForTrt(Compiled):
    name = "fortrt"
    targets = ("trt",)
'''
FORMATS = {
    "compiled": "Compiled",
    "wrong": "Wrong",
    "lossy": "Lossy",
    "sly": "Sly",
    "messy": "Messy",
    "stopped": "Stopped",
    "homeless": "Homeless",
    "fortrt": "ForTrt",
}

# What int8 takes.
INT8 = ("--calibration", "calibration.npy", "--min-agreement", "0.9")


@pytest.fixture
def compilers(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module with the formats of :data:`FORMATS`, installed."""
    points = {name: f"fake_engine:{target}" for name, target in FORMATS.items()}
    install(tmp_path_factory.mktemp("compilers") / "site", monkeypatch, COMPILERS, **points)
    import fake_engine

    return fake_engine


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with small.pt, calibration.npy and small-onnx-P for each precision P, which no test changes."""
    place = tmp_path_factory.mktemp("pristine")
    save_checkpoint(place / "small.pt", small_spec())
    images = np.random.default_rng(0).standard_normal((64, 3, 20, 28)).astype(np.float32)
    np.save(place / "calibration.npy", images)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        ran = run("export", "small.pt", *(f"--precision={p}" for p in PRECISIONS), *INT8)
    assert ran.code == 0, ran.err
    return place


@pytest.fixture
def place(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``pristine``, as the working directory."""
    shutil.copytree(pristine, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def files_of(place: Path) -> dict[str, bytes]:
    """Every file below ``place``, and every directory, hidden ones as well."""
    return {str(p.relative_to(place)): p.read_bytes() if p.is_file() else b"" for p in place.rglob("*")}


def message(ran: Ran) -> str:
    """The error that a command ended with."""
    last = ran.err.splitlines()[-1]
    assert last.startswith("error: ") and ran.out == ""
    return last


# Without torch


@pytest.fixture(scope="module")
def device(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """What a device that has onnxruntime, and no other optional package, did with an int8 and an fp16 bundle."""
    out = tmp_path_factory.mktemp("device")
    steps = [
        ("s2mlp-export", str(pristine / f"small-onnx-{precision}"), "--format", "ort", "-o", str(out / precision))
        for precision in ("fp16", "int8")
    ]
    steps += [("s2mlp-verify", str(out / "fp16")), ("s2mlp-verify", str(out / "int8"), "--json")]
    return bare(tuple(name for name in OPTIONAL if name != "onnxruntime"), *steps)


def test_a_device_without_torch_compiles_a_bundle_and_verifies_the_engine(device: Bare) -> None:
    assert [shown["code"] for shown in device.answers.values()] == [0] * 4, device.answers
    assert json.loads(answer(device, "s2mlp-verify", "--json")["out"])["passed"] is True


def test_compiling_a_bundle_loads_none_of_what_exporting_a_checkpoint_needs(device: Bare) -> None:
    assert "onnxruntime" in device.modules
    assert not device.modules.keys() & (set(OPTIONAL) - {"onnxruntime"})


# What a bundle has settled


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("fp32", ["--batch", "2"]),
        ("fp32", ["--shift", "slice"]),
        ("fp32", ["--shift-semantics", "inplace"]),
        ("fp32", ["--shift-directions", "8"]),
        ("fp32", ["--image-size", "40x28"]),
        ("fp32", ["--dynamic-size"]),
        ("fp32", ["--mean", "0.5,0.5,0.5"]),
        ("fp32", ["--std", "1,1,1"]),
        ("fp32", ["--layout", "canonical"]),
        ("fp32", ["--weights", "model"]),
        ("fp32", ["--reference", "r.npz"]),
        ("fp32", ["--data", "images"]),
        ("fp32", ["--data-count", "5"]),
        ("fp32", ["--no-gate"]),
        ("fp16", ["--io-dtype", "fp16"]),
        ("int8", ["--target", "x86"]),
        ("int8", ["--calibration", "calibration.npy"]),
        ("int8", ["--calibration-count", "20"]),
        ("int8", ["--calibration-method", "mse"]),
        ("int8", ["--max-accuracy-drop", "2"]),
        ("int8", ["--min-agreement", "0.9"]),
        ("int8", ["--quantize-ends"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_an_option_that_a_bundle_has_settled_is_refused_by_name(
    place: Path, precision: str, options: list[str]
) -> None:
    before = files_of(place)
    ran = run("export", f"small-onnx-{precision}", "--format", "ort", *options)
    assert ran.code == 2
    assert message(ran).startswith(f"error: {options[0]}: settled when small-onnx-{precision} was exported")
    assert files_of(place) == before


def test_all_such_options_are_named_at_once(place: Path) -> None:
    ran = run("export", "small-onnx-fp32", "--format", "ort", "--batch", 2, "--shift", "pad", "--no-gate")
    assert ran.code == 2
    assert all(option in message(ran) for option in ("--batch", "--shift", "--no-gate"))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("options", [(), ("--format", "onnx"), ("--format", "onnx", "--format", "ort")], ids=str)
def test_a_graph_is_made_from_a_checkpoint_only(options: tuple[str, ...]) -> None:
    ran = run("export", "small-onnx-fp32", *options, "--force")
    assert ran.code == 2 and "--format onnx is made from a checkpoint" in message(ran)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("own", "asked"), [("fp32", "int8"), ("int8", "fp32"), ("fp16", "fp32")])
def test_a_precision_that_is_not_the_bundles_is_refused(own: str, asked: str) -> None:
    ran = run("export", f"small-onnx-{own}", "--format", "ort", "--precision", asked)
    assert ran.code == 2
    assert f"holds a {own} graph" in message(ran) and f"--precision {asked}" in message(ran)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bundles_own_precision_may_be_given(precision: str) -> None:
    assert run("export", f"small-onnx-{precision}", "--format", "ort", "--precision", precision).code == 0


def test_a_graph_quantized_for_another_target_is_refused(place: Path, compilers: Any) -> None:
    before = files_of(place)
    ran = run("export", "small-onnx-int8", "--format", "fortrt")
    assert ran.code == 2
    assert "is quantized for x86" in message(ran) and "--format fortrt takes graphs for trt" in message(ran)
    assert compilers.calls == [] and files_of(place) == before


@pytest.mark.usefixtures("compilers", "place")
def test_a_checkpoint_is_quantized_for_what_the_format_takes() -> None:
    ran = run("export", "small.pt", "--format", "fortrt", "--precision", "int8", *INT8, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["exports"][0]["manifest"]["quantization"]["target"] == "trt"
    ran = run("export", "small.pt", "--format", "fortrt", "--precision", "int8", "--target", "x86", *INT8, "--force")
    assert ran.code == 2 and "does not take int8 graphs for --target x86" in message(ran)


# What is no bundle to compile


def test_an_engine_is_not_compiled_again(place: Path) -> None:
    assert run("export", "small-onnx-fp32", "--format", "ort").code == 0
    before = files_of(place)
    ran = run("export", "small-ort-fp32", "--format", "ort", "-o", "again")
    assert ran.code == 3 and "of format 'ort': expected an ONNX bundle" in message(ran)
    assert files_of(place) == before


@pytest.mark.parametrize("file", ["model.onnx", "golden.safetensors"])
def test_a_changed_byte_is_found_before_the_compiler_sees_it(place: Path, compilers: Any, file: str) -> None:
    path = place / "small-onnx-fp32" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    before = files_of(place)
    ran = run("export", "small-onnx-fp32", "--format", "compiled")
    assert ran.code == 3 and file in message(ran) and "SHA-256" in message(ran)
    assert compilers.calls == [] and files_of(place) == before


def test_a_bundle_that_lacks_a_file_is_not_compiled(place: Path, compilers: Any) -> None:
    (place / "small-onnx-fp32" / "golden.safetensors").unlink()
    assert run("export", "small-onnx-fp32", "--format", "compiled").code == 3
    with pytest.raises(BundleError, match=r"golden\.safetensors is missing"):
        deploy(ExportRequest(Source(Path("small-onnx-fp32")), format=FormatOptions("compiled")))
    assert compilers.calls == []


def test_a_destination_that_is_taken_is_refused_before_compiling(place: Path, compilers: Any) -> None:
    assert run("export", "small-onnx-fp32", "--format", "compiled").code == 0
    assert run("export", "small-onnx-fp32", "--format", "compiled").code == 3
    assert run("export", "small-onnx-fp32", "--format", "compiled", "--force").code == 0
    assert len(compilers.calls) == 2


# The gate


SOURCES = {"checkpoint": "small.pt", "bundle": "small-onnx-{}"}


def compile_from(source: str, format: str, precision: str, *options: object) -> Ran:
    of_graph = INT8 if source == "checkpoint" and precision == "int8" else ()
    return run(
        "export", SOURCES[source].format(precision), "--format", format, "--precision", precision, *of_graph, *options
    )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_compiler_of_others_works_from_both_sources(place: Path, compilers: Any, source: str, precision: str) -> None:
    ran = compile_from(source, "compiled", precision)
    assert ran.code == 0, ran.err
    engine = place / f"small-compiled-{precision}"
    manifest = manifest_of(engine)
    assert (manifest["format"], manifest["artifact"], manifest["engine"]) == ("compiled", "engine.bin", {"speed": 1})
    assert manifest["versions"]["fake"] == "2.0" and manifest["verdict"] == "passed"
    assert manifest["files"].keys() == {"engine.bin", "golden.json", "golden.safetensors"}
    assert run("verify", engine).code == 0
    ((compiled, _),) = compilers.calls
    assert (compiled == Path(f"small-onnx-{precision}")) == (source == "bundle")


@pytest.mark.usefixtures("place")
def test_settings_reach_the_compiler_and_the_manifest(compilers: Any) -> None:
    for source in ("small.pt", "small-onnx-fp32"):
        made = deploy(
            ExportRequest(
                Source(Path(source)), format=FormatOptions("compiled", {"speed": 9}), output=OutputOptions(force=True)
            )
        )
        assert made.bundle.manifest.engine == {"speed": 9}
    assert [settings for _, settings in compilers.calls] == [{"speed": 9}] * 2


@pytest.mark.usefixtures("compilers")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("format", "reason"), [("wrong", "relative L2"), ("lossy", "shape and dtype")])
def test_an_engine_that_is_wrong_is_not_published(
    place: Path, source: str, precision: str, format: str, reason: str
) -> None:
    before = files_of(place)
    ran = compile_from(source, format, precision)
    assert ran.code == 1 and reason in message(ran) and "nothing was published" in message(ran)
    assert files_of(place) == before


@pytest.mark.usefixtures("compilers", "place")
def test_an_engine_that_is_wrong_beyond_the_golden_tensors_is_found_by_labelled_images(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="images: relative L2"):
        deploy(
            ExportRequest(
                Source(PAPER_CHECKPOINT),
                format=FormatOptions("sly"),
                evidence=EvidenceOptions(data=TEST_IMAGES, data_count=40),
                output=OutputOptions(tmp_path / "out"),
            )
        )
    ran = run("export", PAPER_CHECKPOINT, "--format", "sly", "--data", TEST_IMAGES, "-o", tmp_path / "out")
    assert ran.code == 1 and "images: same class" in message(ran)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("compilers")
def test_an_int8_engine_that_is_wrong_beyond_the_golden_tensors_is_found_by_the_judging_images(place: Path) -> None:
    before = files_of(place)
    ran = compile_from("checkpoint", "sly", "int8")
    assert ran.code == 1
    assert "compiled for sly, the int8 graph no longer keeps --min-agreement 0.9" in message(ran)
    assert files_of(place) == before


@pytest.mark.usefixtures("compilers", "place")
def test_an_int8_engine_that_loses_accuracy_is_found_by_labels(tmp_path: Path) -> None:
    request = ExportRequest(
        Source(PAPER_CHECKPOINT),
        precision=Int8(calibration=TEST_IMAGES, max_accuracy_drop=1),
        format=FormatOptions("sly"),
        evidence=EvidenceOptions(data=TEST_IMAGES),
        output=OutputOptions(tmp_path / "out"),
    )
    with pytest.raises(AccuracyError, match=r"no longer keeps --max-accuracy-drop 1 and .*: 0 in float: same class"):
        deploy(request)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("compilers")
@pytest.mark.parametrize("format", ["wrong", "messy", "homeless"])
def test_an_engine_that_is_there_stays_when_its_replacement_fails(place: Path, format: str) -> None:
    assert run("export", "small-onnx-fp32", "--format", "compiled", "-o", "engine").code == 0
    before = files_of(place)
    assert run("export", "small-onnx-fp32", "--format", format, "-o", "engine", "--force").code != 0
    assert files_of(place) == before


@pytest.mark.parametrize("source", ["small.pt", "bundle"])
@pytest.mark.parametrize("format", ["compiled", "ort", "wrong"])
def test_without_a_gate_the_engine_says_so_and_has_no_golden_tensors(
    place: Path, compilers: Any, source: str, format: str
) -> None:
    assert run("export", "small.pt", "--no-gate", "-o", "bundle").code == 0
    options = ["--no-gate"] if source == "small.pt" else []
    ran = run("export", source, "--format", format, *options, "-o", "engine")
    assert ran.code == 0 and "NOT JUDGED: without its gate" in ran.out, ran.err
    manifest = manifest_of(place / "engine")
    assert manifest["verdict"] == "not judged" and manifest["tolerance"] is None
    assert "golden.safetensors" not in files_of(place / "engine")
    assert run("verify", "engine").code == 3


@pytest.mark.usefixtures("compilers")
@pytest.mark.parametrize("source", ["small.pt", "bundle"])
@pytest.mark.parametrize("format", ["compiled", "ort"])
def test_synthetic_calibration_makes_engines_for_benchmarks_only(place: Path, source: str, format: str) -> None:
    synthetic = ["--precision", "int8", "--calibration", "synthetic"]
    assert run("export", "small.pt", *synthetic, "-o", "bundle").code == 0
    options = synthetic if source == "small.pt" else []
    ran = run("export", source, "--format", format, *options, "-o", "engine", "--json")
    assert ran.code == 0, ran.err
    (export,) = ran.json["exports"]
    assert export["passed"] is None and export["manifest"]["verdict"] == "for benchmarks only"
    assert "golden.safetensors" not in files_of(place / "engine")


# Several at once


@pytest.fixture
def several(place: Path) -> Ran:
    """onnx and ort at fp32 and int8 of the checkpoint in one call, in the directory ``several``."""
    (place / "several").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place / "several")
        return run(
            "export",
            place / "small.pt",
            "--format",
            "onnx",
            "--format",
            "ort",
            "--precision",
            "fp32",
            "--precision",
            "int8",
            "--calibration",
            place / "calibration.npy",
            "--min-agreement",
            "0.9",
            "--json",
        )


def test_several_formats_and_precisions_share_one_reading_of_the_checkpoint(several: Ran) -> None:
    assert several.code == 0, several.err
    steps = several.err.splitlines()
    assert steps.count("reading the checkpoint …") == 1
    assert steps.count("computing golden logits in float64 …") == 1
    assert [e["bundle"] for e in several.json["exports"]] == [
        "small-onnx-fp32",
        "small-onnx-int8",
        "small-ort-fp32",
        "small-ort-int8",
    ]


@pytest.mark.usefixtures("several")
def test_each_of_several_is_what_it_would_be_alone(place: Path) -> None:
    assert {p.name for p in (place / "several").iterdir()} == {
        f"small-{format}-{precision}" for format in ("onnx", "ort") for precision in ("fp32", "int8")
    }
    for precision in ("fp32", "int8"):
        assert run("export", f"small-onnx-{precision}", "--format", "ort").code == 0
        for format in ("onnx", "ort"):
            name = f"small-{format}-{precision}"
            assert promised(place / "several" / name) == promised(place / name), name


@pytest.mark.usefixtures("place")
def test_several_engines_are_compiled_from_one_bundle(compilers: Any) -> None:
    ran = run("export", "small-onnx-int8", "--format", "ort", "--format", "compiled", "--json")
    assert ran.code == 0, ran.err
    assert [e["bundle"] for e in ran.json["exports"]] == ["small-ort-int8", "small-compiled-int8"]
    assert len(compilers.calls) == 1


def test_what_was_published_before_a_failure_stays(place: Path, compilers: Any) -> None:
    before = files_of(place)
    ran = run("export", "small.pt", "--format", "ort", "--format", "wrong", "--format", "compiled")
    assert ran.code == 1
    assert run("verify", "small-ort-fp32").code == 0
    new = {Path(name).parts[0] for name in files_of(place).keys() - before.keys()}
    assert new == {"small-ort-fp32"} and len(compilers.calls) == 1


# Names, and what is left behind


@pytest.mark.parametrize("source", ["small.pt", "small-onnx-fp32", "small-onnx-fp32/", "./small-onnx-fp32"])
def test_an_engine_is_called_after_the_checkpoint_from_either_source(place: Path, source: str) -> None:
    ran = run("export", source, "--format", "ort", "--json")
    assert ran.code == 0 and ran.json["exports"][0]["bundle"] == "small-ort-fp32"
    assert (place / "small-ort-fp32" / "model.ort").exists()


def test_a_bundle_of_another_name_gives_its_whole_name(place: Path) -> None:
    (place / "small-onnx-fp32").rename(place / "phone")
    assert run("export", "phone", "--format", "ort").code == 0
    assert (place / "phone-ort-fp32").is_dir()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("format", ["ort", "compiled"])
def test_nothing_but_the_engine_is_left(place: Path, compilers: Any, source: str, format: str) -> None:
    before = files_of(place)
    assert compile_from(source, format, "fp32", "-o", "new/deep/engine").code == 0
    new = {name for name in files_of(place).keys() - before.keys() if not name.startswith("new/deep/engine/")}
    assert new == {"new", "new/deep", "new/deep/engine"}
    assert {k: v for k, v in files_of(place).items() if k in before} == before


@pytest.mark.usefixtures("compilers")
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("format", "code", "said"),
    [("homeless", 4, "no such device"), ("stopped", 130, "interrupted"), ("messy", 3, "scratch.tmp")],
)
def test_a_compiler_that_fails_leaves_nothing(place: Path, source: str, format: str, code: int, said: str) -> None:
    before = files_of(place)
    ran = compile_from(source, format, "fp32", "-o", "new/deep/engine")
    assert ran.code == code and said in message(ran)
    assert files_of(place) == before


def test_a_compiler_that_lacks_its_runtime_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(place)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran = run("export", "small-onnx-fp32", "--format", "ort")
    assert ran.code == 4 and "pip install onnxruntime" in message(ran)
    assert files_of(place) == before


def test_a_disk_without_room_is_found_before_the_engine_is_built(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = pristine / "small-onnx-fp32"
    size = read_bundle(bundle).size_bytes
    monkeypatch.setattr(engine.shutil, "disk_usage", lambda place: SimpleNamespace(free=engine.ROOM * size - 1))
    monkeypatch.setattr(OrtModel, "compile", lambda *_: pytest.fail("was compiled all the same"))
    ran = run("export", bundle, "--format", "ort", "-o", tmp_path / "engine")
    assert ran.code == 3 and "MB free" in ran.err and "-o" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_artifacts_made_together_must_have_in_common_what_is_shared(place: Path) -> None:
    first = ExportRequest(Source(place / "small.pt"), output=OutputOptions(place / "never a"))
    others = (
        replace(first, source=replace(first.source, semantics="inplace")),
        replace(first, graph=GraphOptions(interface=Interface(input="uint8"))),
        replace(first, graph=GraphOptions(batch=3)),
        replace(first, evidence=EvidenceOptions(data_count=3)),
    )
    for other in others:
        other = replace(other, output=OutputOptions(place / "never b"))
        with pytest.raises(UsageError, match="made together must have this in common"):
            list(deploy_all([first, other]))
    assert not list(place.glob("never*"))
