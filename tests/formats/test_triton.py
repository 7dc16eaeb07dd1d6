"""``--format triton``: entries that Triton's own schema takes, for the model beside them; what Triton cannot do is refused."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format

from helpers import formats
from helpers.formats import PRECISIONS, change_manifest, exported, manifest_of, promised, replace_file, silence
from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, command, run, save_checkpoint, small_spec
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.contents import GOLDEN, Artifact, Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import ExportRequest, FormatOptions, OutputOptions, Source
from s2mlp_deploy.runtime.onnxruntime import OnnxSession
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.tensorrt.options import TensorRtOptions
from s2mlp_exporters.triton import config as triton_config
from s2mlp_exporters.triton import perf
from s2mlp_exporters.triton.config import Serving, Signature, Tensor
from s2mlp_exporters.triton.exporter import CONFIG, LABELS, MAX_BATCH

MODEL = "1/model.onnx"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``onnx-P`` and ``triton-P`` of a small checkpoint, for each precision P."""
    return formats.make(tmp_path_factory.mktemp("made"), "triton")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX bundle of the bundled checkpoint, whose classes have names."""
    place = tmp_path_factory.mktemp("labelled")
    exported(PAPER_CHECKPOINT, "--data", TEST_IMAGES, "--data-count", 20, "-o", place / "fashion")
    return place / "fashion"


@pytest.fixture
def entry(made: Path, tmp_path: Path) -> Path:
    """A copy of the fp32 entry, to be changed."""
    return Path(shutil.copytree(made / "triton-fp32", tmp_path / "entry"))


# Triton's own schema


def schema() -> Any:
    """The generated module of Triton's protobuf schema, from NVIDIA's client; the rest of that needs gRPC."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs tritonclient")
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec and spec.loader
    module = sys.modules.get("model_config_pb2") or importlib.util.module_from_spec(spec)
    if "model_config_pb2" not in sys.modules:  # its messages can be registered once only
        sys.modules["model_config_pb2"] = module
        spec.loader.exec_module(module)
    return module


def parsed(text: str) -> Any:
    """The configuration, as Triton reads it: an unknown field or value is an error."""
    return text_format.Parse(text, schema().ModelConfig())


def config_of(entry: Path) -> Any:
    return parsed((entry / CONFIG).read_text("utf-8"))


def tensors(values: Any) -> list[tuple[str, str, list[int]]]:
    """Name, type and dimensions of each input or output of a configuration."""
    names = schema().DataType.DESCRIPTOR.values_by_number
    return [(value.name, names[value.data_type].name, list(value.dims)) for value in values]


def test_the_schema_refuses_what_it_does_not_know() -> None:
    for text in ("max_batch: 3", 'input { name: "x" data_type: TYPE_FP33 }', "instance_group { kind: KIND_TPU }"):
        with pytest.raises(text_format.ParseError):
            parsed(text)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_configuration_is_the_one_for_the_model(made: Path, precision: str) -> None:
    config = config_of(made / f"triton-{precision}")
    assert (config.backend, config.platform, config.name) == ("onnxruntime", "", "")  # the directory is the name
    assert config.max_batch_size == MAX_BATCH and config.default_model_filename == "model.onnx"
    assert tensors(config.input) == [("input", "TYPE_FP32", [3, 20, 28])]
    assert tensors(config.output) == [("logits", "TYPE_FP32", [7])]
    (group,) = config.instance_group
    assert (group.kind, group.count) == (schema().ModelInstanceGroup.KIND_CPU, 1)
    assert config.HasField("dynamic_batching") and not config.dynamic_batching.preferred_batch_size
    assert list(config.version_policy.specific.versions) == [1]


@pytest.mark.parametrize(
    ("options", "max_batch", "dims"),
    [
        (("--batch", 3), 0, [3, 3, 20, 28]),
        (("--batch", 1), 0, [1, 3, 20, 28]),
        (("--dynamic-size",), 8, [3, -1, -1]),
        (("--dynamic-size", "--batch", 2), 0, [2, 3, -1, -1]),
        (("--max-batch", 32), 32, [3, 20, 28]),
        (("--max-batch", 1), 1, [3, 20, 28]),
    ],
    ids=str,
)
def test_batches_and_sizes_are_those_of_the_model(
    checkpoint: Path, tmp_path: Path, options: tuple[object, ...], max_batch: int, dims: list[int]
) -> None:
    exported(checkpoint, "--format", "triton", *options, "-o", tmp_path / "entry")
    config = config_of(tmp_path / "entry")
    assert config.max_batch_size == max_batch
    assert config.HasField("dynamic_batching") == (max_batch > 1)
    assert tensors(config.input) == [("input", "TYPE_FP32", dims)]
    assert tensors(config.output) == [("logits", "TYPE_FP32", [7] if max_batch else [dims[0], 7])]
    assert run("verify", tmp_path / "entry").code == 0


def test_float16_input_and_output_are_told(checkpoint: Path, tmp_path: Path) -> None:
    options = ("--precision", "fp16", "--io-dtype", "fp16")
    exported(checkpoint, "--format", "triton", *options, "-o", tmp_path / "entry")
    config = config_of(tmp_path / "entry")
    assert [t for _, t, _ in tensors([*config.input, *config.output])] == ["TYPE_FP16", "TYPE_FP16"]
    assert run("verify", tmp_path / "entry").code == 0


def test_every_option_reaches_the_configuration_and_the_manifest(made: Path, tmp_path: Path) -> None:
    options = ("--max-batch", 16, "--preferred-batch", "4,16", "--queue-delay-us", 250, "--instances", "cpu:3")
    exported(made / "onnx-fp32", "--format", "triton", *options, "-o", tmp_path / "entry")
    config = config_of(tmp_path / "entry")
    assert config.max_batch_size == 16 and list(config.dynamic_batching.preferred_batch_size) == [4, 16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    assert [(group.kind, group.count) for group in config.instance_group] == [(schema().ModelInstanceGroup.KIND_CPU, 3)]
    assert manifest_of(tmp_path / "entry")["engine"] == {
        "backend": "onnxruntime",
        "max_batch": 16,
        "preferred_batch": ["4", "16"],
        "queue_delay_us": 250,
        "kind": "cpu",
        "instances": 3,
    }
    assert run("verify", tmp_path / "entry").code == 0


def test_the_classes_have_their_names(labelled: Path, tmp_path: Path) -> None:
    exported(labelled, "--format", "triton", "-o", tmp_path / "entry")
    (output,) = config_of(tmp_path / "entry").output
    assert output.label_filename == LABELS
    labels = manifest_of(tmp_path / "entry")["labels"]
    assert (tmp_path / "entry" / LABELS).read_text("utf-8") == "\n".join(labels) + "\n"
    assert run("verify", tmp_path / "entry").code == 0


def signature(*outputs: tuple[int | str, ...], image: tuple[int | str, ...] = ("batch", 3, 20, 28)) -> Signature:
    named = tuple(Tensor(f'the "{i}"', "TYPE_FP32", shape) for i, shape in enumerate(outputs))
    return Signature((Tensor("input", "TYPE_UINT8", image),), named)


SERVING = Serving(backend="onnxruntime", max_batch=4, preferred_batch=(), queue_delay_us=0, kind="gpu", instances=2)


def test_several_outputs_and_odd_names_are_written_as_they_are() -> None:
    text = triton_config.text(signature(("batch", 5), ("batch", 7)), SERVING, classes=7, labels=LABELS)
    config = parsed(text)
    assert tensors(config.output) == [('the "0"', "TYPE_FP32", [5]), ('the "1"', "TYPE_FP32", [7])]
    assert [output.label_filename for output in config.output] == ["", LABELS]
    assert [(group.kind, group.count) for group in config.instance_group] == [(schema().ModelInstanceGroup.KIND_GPU, 2)]


@pytest.mark.parametrize(
    ("model", "free"),
    [
        (signature(("batch", 7)), True),
        (signature((1, 7), image=(1, 3, 20, 28)), False),
        (signature(("batch", 7), (7,)), False),
        (signature((1, 7)), False),
        (signature((7,), image=("height", "width", 3)), False),
        (signature(("batch", 7), image=("height", "width", 3)), False),
    ],
    ids=["any batch", "batch 1", "an output without", "an output of one", "an image", "an image and a batch"],
)
def test_batches_are_made_only_where_every_tensor_has_the_same_free_batch(model: Signature, free: bool) -> None:
    assert model.is_free_batch is free


# The bundle


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_entry_verifies_and_holds_the_model_of_the_onnx_bundle(made: Path, precision: str) -> None:
    bundle = made / f"triton-{precision}"
    verified = run("verify", bundle)
    assert verified.code == 0, verified.err
    assert promised(bundle).keys() == {MODEL, CONFIG, "manifest.json", "golden.safetensors"}
    assert (bundle / MODEL).read_bytes() == (made / f"onnx-{precision}" / "model.onnx").read_bytes()


def test_an_entry_is_replaced_whole_with_force(made: Path, entry: Path) -> None:
    assert run("export", made / "onnx-fp32", "--format", "triton", "-o", entry).code == 3
    exported(made / "onnx-fp16", "--format", "triton", "-o", entry, "--force")
    assert promised(entry) == promised(made / "triton-fp16")
    (entry / "2").mkdir()
    ran = run("export", made / "onnx-fp32", "--format", "triton", "-o", entry, "--force")
    assert ran.code == 3 and "holds more than a bundle" in ran.err and (entry / "2").is_dir()


def test_it_can_be_timed_against_other_formats(made: Path, tmp_path: Path) -> None:
    bundles, table = [made / f"{name}-fp32" for name in ("onnx", "triton")], tmp_path / "table.csv"
    options = ("--threads", 1, "--min-seconds", 0, "--min-rounds", 8, "--no-cold", "--csv", table)
    ran = command("s2mlp-bench", "s2mlp_bench.cli", "main", *bundles, *options)
    assert ran.code == 0 and "triton-fp32, 1 thread," in table.read_text().replace('"', ""), ran.err


def test_the_doctor_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "✓ build, run and verify triton bundles" in run("doctor").out
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "run and verify triton bundles: onnxruntime missing" in " ".join(run("doctor").out.split())


# What cannot be


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-batch", 4, "--preferred-batch", "2,8"), "--preferred-batch 2,8: larger than --max-batch 4"),
        (("--preferred-batch", "2,9"), "--preferred-batch 2,9: larger than --max-batch 8"),
        (("--preferred-batch", "0"), "--preferred-batch '0'"),
        (("--preferred-batch", "2,,4"), "--preferred-batch ''"),
        (("--preferred-batch", "many"), "--preferred-batch 'many'"),
        (("--max-batch", 1, "--queue-delay-us", 5), "--queue-delay-us: with --max-batch 1 there are no batches"),
        (("--max-batch", 1, "--preferred-batch", 1), "--preferred-batch: with --max-batch 1"),
        (("--max-batch", 70000), "--max-batch"),
        (("--max-batch", 0), "--max-batch"),
        (("--queue-delay-us", -1), "--queue-delay-us"),
        (("--instances", 0), "--instances '0'"),
        (("--instances", "two"), "--instances 'two'"),
        (("--instances", "tpu:2"), "--instances 'tpu:2'"),
        (("--instances", ":2"), "--instances ':2'"),
        (("--instances", "cpu:"), "--instances 'cpu:'"),
        (("--triton-backend", "abacus"), "abacus"),
        (("--provider", "cpu"), "--provider: not for --format triton"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_settings_that_make_no_sense_are_refused_by_name(
    made: Path, tmp_path: Path, options: tuple[object, ...], said: str
) -> None:
    ran = run("export", made / "onnx-fp32", "--format", "triton", *options, "-o", tmp_path / "entry")
    assert (ran.code, ran.out) == (2, "") and said in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [("--max-batch", 4), ("--preferred-batch", 2), ("--queue-delay-us", 9)], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_batches_of_a_model_with_a_fixed_batch_are_refused(
    checkpoint: Path, tmp_path: Path, batch: int, option: tuple[object, ...]
) -> None:
    ran = run("export", checkpoint, "--format", "triton", "--batch", batch, *option, "-o", tmp_path / "entry")
    assert ran.code == 2 and f"{option[0]}: the model has a fixed batch" in ran.err and "--batch dynamic" in ran.err
    assert not (tmp_path / "entry").exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--max-batch", 4),
        ("--preferred-batch", 2),
        ("--queue-delay-us", 9),
        ("--instances", 2),
        ("--triton-backend", "tensorrt"),
    ],
    ids=str,
)
def test_its_options_are_refused_for_other_formats(
    checkpoint: Path, tmp_path: Path, option: tuple[str, object]
) -> None:
    ran = run("export", checkpoint, "--format", "ort", *option, "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "") and f"{option[0]}: not for --format ort" in ran.err


@pytest.mark.parametrize("settings", [{"max_batch": 0}, {"max_batch": "many"}, {"triton_backend": "abacus"}], ids=str)
def test_settings_from_python_are_judged_too(made: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        deploy(
            ExportRequest(
                Source(made / "onnx-fp32"),
                format=FormatOptions("triton", settings),
                output=OutputOptions(tmp_path / "out"),
            )
        )


def test_a_label_of_several_lines_is_refused(labelled: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(labelled, tmp_path / "graph"))
    change_manifest(bundle, lambda m: m["labels"].__setitem__(3, "a\nb"))
    ran = run("export", bundle, "--format", "triton", "-o", tmp_path / "out")
    assert ran.code == 2 and "goes over several lines" in ran.err and not (tmp_path / "out").exists()


def test_weights_beside_the_model_are_refused(made: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(made / "onnx-fp32", tmp_path / "graph"))
    replace_file(bundle, "model.onnx.data", b"weights")
    ran = run("export", bundle, "--format", "triton", "-o", tmp_path / "out")
    assert ran.code == 2 and "keeps its weights in a file beside it" in ran.err


@pytest.mark.parametrize("source", ["onnx-fp32", "small.pt"], ids=["bundle", "checkpoint"])
def test_without_tensorrt_an_engine_is_refused_and_the_way_on_told(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    options = ("--format", "triton", "--triton-backend", "tensorrt", "--max-batch", 4)
    ran = run("export", made / source, *options, "-o", tmp_path / "new" / "entry")
    assert (ran.code, ran.out) == (4, "") and "TensorRT cannot be loaded" in ran.err
    name = "onnx-fp32" if source == "onnx-fp32" else "entry-onnx-fp32"
    assert f"s2mlp-export {name} --format triton" in ran.err
    assert "--triton-backend tensorrt" in ran.err and "--max-batch 4" in ran.err


def test_without_onnxruntime_it_says_what_to_install(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran = run("export", made / "onnx-fp32", "--format", "triton", "-o", tmp_path / "out")
    assert (ran.code, ran.out) == (4, "") and "pip install onnxruntime" in ran.err
    ran = run("verify", made / "triton-fp32")
    assert (ran.code, ran.out) == (4, "") and "pip install onnxruntime" in ran.err


def test_instances_on_a_gpu_are_judged_on_one(made: Path, tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime runs on GPUs")
    options = ("--format", "triton", "--instances", "gpu:2", "-o", tmp_path / "entry")
    ran = run("export", made / "onnx-fp32", *options)
    assert ran.code == 1 and "has no CUDAExecutionProvider" in ran.err and list(tmp_path.iterdir()) == []
    exported(made / "onnx-fp32", *options, "--allow-unverified-engine")
    assert manifest_of(tmp_path / "entry")["verdict"] == "pending a device"
    (group,) = config_of(tmp_path / "entry").instance_group
    assert (group.kind, group.count) == (schema().ModelInstanceGroup.KIND_GPU, 2)
    ran = run("verify", tmp_path / "entry")
    assert ran.code == 4 and "has no CUDAExecutionProvider" in ran.err  # and no word of the CPU's numbers


# Damage


@pytest.mark.parametrize(
    ("entry_change", "said"),
    [
        ({"backend": "abacus"}, "backend 'abacus'"),
        ({"kind": "tpu"}, "kind 'tpu'"),
        ({"instances": 0}, "instances 0"),
        ({"preferred_batch": ["many"]}, "preferred_batch.0 'many'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_damaged_record_is_a_damaged_bundle(entry: Path, entry_change: Mapping[str, Any], said: str) -> None:
    change_manifest(entry, lambda m: m["engine"].update(entry_change))
    ran = run("verify", entry)
    assert (ran.code, ran.out) == (3, "")
    assert f"{entry / 'manifest.json'}: engine" in ran.err and said in ran.err and "copy it again" in ran.err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name: "logits"', 'name: "scores"'),
        ("TYPE_FP32", "TYPE_FP16"),
        ("[ 3, 20, 28 ]", "[ 3, 28, 20 ]"),
        ("max_batch_size: 8", "max_batch_size: 9"),
        ("count: 1", "count: 2"),
        ("[ 1 ]", "[ 2 ]"),
        ("model.onnx", "other.onnx"),
        ("backend: ", "platform: "),
    ],
)
def test_a_configuration_for_another_model_is_found(entry: Path, old: str, new: str) -> None:
    text = (entry / CONFIG).read_text("utf-8")
    assert old in text
    replace_file(entry, CONFIG, text.replace(old, new, 1).encode())
    ran = run("verify", entry)
    assert ran.code == 3 and f"{entry / CONFIG} is not the configuration of the model beside it" in ran.err


def test_labels_that_do_not_fit_the_model_are_found(labelled: Path, tmp_path: Path) -> None:
    exported(labelled, "--format", "triton", "-o", tmp_path / "entry")
    replace_file(tmp_path / "entry", LABELS, b"one\ntwo\n")
    assert run("verify", tmp_path / "entry").code == 3


@pytest.mark.parametrize(
    "change", [lambda _: b"", lambda _: b"garbage", lambda x: x[: len(x) // 2]], ids=["", "g", "cut"]
)
def test_a_model_that_is_none_is_told(
    entry: Path, change: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    replace_file(entry, MODEL, change((entry / MODEL).read_bytes()))
    ran = run("verify", entry)
    assert (ran.code, ran.out) == (3, "") and str(entry) in ran.err
    assert capfd.readouterr() == ("", "")


def test_the_model_of_another_checkpoint_fails_the_gate(entry: Path, tmp_path: Path) -> None:
    other = save_checkpoint(tmp_path / "other.pt", small_spec(), seed=1)
    exported(other, "--format", "triton", "-o", tmp_path / "other")
    replace_file(entry, MODEL, (tmp_path / "other" / MODEL).read_bytes())
    silence(entry, MODEL)
    assert run("verify", entry).code == 1


def test_numbers_that_are_off_are_not_published(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_as_it_is = OnnxSession.run
    monkeypatch.setattr(OnnxSession, "run", lambda self, images: run_as_it_is(self, images) * np.float32(1.0001))
    ran = run("export", made / "onnx-fp32", "--format", "triton", "-o", tmp_path / "entry")
    assert (ran.code, ran.out) == (1, "") and "relative L2" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_a_type_that_triton_has_no_name_for_is_told(made: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(made / "onnx-fp32", tmp_path / "graph"))
    model = onnx.load(bundle / "model.onnx")
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.COMPLEX64
    replace_file(bundle, "model.onnx", model.SerializeToString())
    ran = run("export", bundle, "--format", "triton", "-o", tmp_path / "out")
    assert ran.code == 2 and "input has the type COMPLEX64" in ran.err


# An engine of TensorRT, with a stand-in for the format that builds it


class Builder(Compiler):
    """A stand-in for ``--format trt`` without a GPU: the plan is the graph, and ONNX Runtime runs it."""

    name, precisions, options, targets = "trt", ("fp32", "fp16", "int8"), TensorRtOptions, ("trt",)
    modules = ("onnxruntime",)

    def __init__(self) -> None:
        self.profiles: list[Mapping[str, object]] = []

    def inspect(self, bundle: Bundle) -> None:
        raise AssertionError("nothing here is a bundle of trt")

    def compile(self, bundle: Bundle, destination: Path, options: TensorRtOptions) -> Artifact:
        self.profiles.append(options.given)
        for name in ("model.plan", "model.onnx"):
            shutil.copyfile(bundle.artifact.path, destination / name)
        record = {"runtime": "tensorrt", "built_for": ("sm86", "a GPU")}
        figures = {"kernels": 3, "shift_kernels": 1, "moved_bytes": 5, "shift_moved_bytes": 2}
        return Artifact(destination, "model.plan", ("model.plan",), record, ("model.onnx",), figures)

    def open(self, made: Artifact) -> OnnxSession:
        assert made.settings == {"runtime": "tensorrt", "built_for": ("sm86", "a GPU")} and made.graph == (
            "model.onnx",
        )
        return OnnxSession(made.path)

    def versions(self) -> dict[str, str]:
        return {}


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    stand_in, find = Builder(), registry.find
    monkeypatch.setattr(registry, "find", lambda name: stand_in if name == "trt" else find(name))
    return stand_in


TENSORRT = ("--format", "triton", "--triton-backend", "tensorrt")


@pytest.mark.parametrize(
    ("options", "profile"),
    [
        ((), {"batch": "1:8:8"}),
        (("--max-batch", 32, "--preferred-batch", "4,16"), {"batch": "1:16:32"}),
        (("--max-batch", 1, "--instances", 2), {"batch": "1:1:1"}),
    ],
    ids=str,
)
def test_an_engine_is_built_for_the_batches_that_triton_makes(
    made: Path, tmp_path: Path, builder: Builder, options: tuple[object, ...], profile: Mapping[str, str]
) -> None:
    exported(made / "onnx-fp32", *TENSORRT, *options, "-o", tmp_path / "entry")
    assert builder.profiles == [profile]
    entry = tmp_path / "entry"
    assert promised(entry).keys() == {"1/model.plan", "model.onnx", CONFIG, "manifest.json", "golden.safetensors"}
    config = config_of(entry)
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert config.instance_group[0].kind == schema().ModelInstanceGroup.KIND_GPU
    manifest = manifest_of(entry)
    assert (manifest["artifact"], manifest["graph"]) == ("1/model.plan", ["model.onnx"])
    assert manifest["engine"]["engine.runtime"] == "tensorrt" and manifest["engine"]["engine.built_for"][0] == "sm86"
    assert run("verify", entry).code == 0
    with pytest.raises(UsageError, match="have no threads to set"):
        registry.find("triton").open_with_threads(read_bundle(entry).artifact, 1)


def test_an_engine_for_a_fixed_batch_needs_no_profile(checkpoint: Path, tmp_path: Path, builder: Builder) -> None:
    exported(checkpoint, *TENSORRT, "--batch", 3, "-o", tmp_path / "entry")
    assert builder.profiles == [{}] and config_of(tmp_path / "entry").max_batch_size == 0


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("onnx-fp32", ("--instances", "cpu:1"), "--instances: engines of TensorRT run on GPUs alone"),
        ("onnx-int8", (), "is quantized for x86: export the checkpoint with --target trt"),
    ],
)
def test_what_an_engine_cannot_be_is_refused(
    made: Path, tmp_path: Path, builder: Builder, source: str, options: tuple[object, ...], said: str
) -> None:
    ran = run("export", made / source, *TENSORRT, *options, "-o", tmp_path / "entry")
    assert ran.code == 2 and said in ran.err and builder.profiles == []


# A server


SERVER = shutil.which("tritonserver")


@contextlib.contextmanager
def serving(repository: Path, log: Path) -> Iterator[str]:
    """The address of a server for ``repository``, once it is ready."""
    assert SERVER
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        f"--model-repository={repository}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--disable-auto-complete-config",
    ]
    with log.open("w") as out, subprocess.Popen([SERVER, *options], stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            for _ in range(240):
                assert process.poll() is None, log.read_text()
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    ask(f"http://127.0.0.1:{port}/v2/health/ready")
                    break
                time.sleep(0.25)
            yield f"http://127.0.0.1:{port}/v2/models"
        finally:
            process.terminate()


def ask(address: str, question: Mapping[str, Any] | None = None) -> Any:
    content = json.dumps(question).encode() if question else None
    with urllib.request.urlopen(address, content, timeout=30) as answer:
        body = answer.read()
    return json.loads(body) if body else None


def infer(address: str, images: Array, **parameters: int) -> Any:
    """What the server answers for ``images``."""
    types = {np.dtype(np.float32): "FP32", np.dtype(np.float16): "FP16"}
    one = {"name": "input", "datatype": types[images.dtype], "shape": images.shape, "data": images.ravel().tolist()}
    outputs = [{"name": "logits", "parameters": parameters}]
    return ask(f"{address}/infer", {"inputs": [one], "outputs": outputs})["outputs"][0]


@pytest.mark.skipif(SERVER is None, reason="needs tritonserver")
def test_a_server_loads_the_entries_and_answers_with_the_golden_logits(
    labelled: Path, made: Path, checkpoint: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    batching = ("--max-batch", 8, "--preferred-batch", "4,8", "--queue-delay-us", 200)
    exported(labelled, "--format", "triton", *batching, "-o", repository / "fashion")
    exported(checkpoint, "--format", "triton", "--batch", 3, "-o", repository / "fixed")
    exported(checkpoint, "--format", "triton", "--dynamic-size", "-o", repository / "any_size")
    exported(made / "onnx-int8", "--format", "triton", "-o", repository / "int8")
    with serving(repository, tmp_path / "log") as models:
        for name, rows in {"fashion": 8, "fixed": 3, "any_size": 8, "int8": 8}.items():
            bundle = read_bundle(repository / name)
            expected, tolerance = golden_tensors.load(bundle.golden), bundle.manifest.tolerance
            assert tolerance is not None
            for case, images in expected.inputs.items():
                whole = images.repeat(rows, axis=0)[:rows] if name == "fixed" else images[:rows]
                answer = infer(f"{models}/{name}", whole)
                logits = np.float64(answer["data"]).reshape(answer["shape"])
                want = (
                    expected.logits[case].repeat(rows, axis=0)[:rows]
                    if name == "fixed"
                    else expected.logits[case][:rows]
                )
                assert np.linalg.norm(logits - want) <= tolerance.relative_l2 * np.linalg.norm(want), (name, case)
        bundle = read_bundle(repository / "fashion")
        expected = golden_tensors.load(bundle.golden)
        answer = infer(f"{models}/fashion", expected.inputs["images"][:4], classification=1)
        labels = [value.split(":")[2] for value in answer["data"]]
        assert labels == [(bundle.manifest.labels or ())[i] for i in expected.logits["images"][:4].argmax(1)]
        told = ask(f"{models}/fashion/config")
        assert told["dynamic_batching"]["preferred_batch_size"] == [4, 8] and told["max_batch_size"] == 8
        with pytest.raises(urllib.error.HTTPError):
            infer(f"{models}/fashion", expected.inputs["images"][:1].repeat(9, axis=0))


def test_an_entry_without_its_configuration_is_a_damaged_bundle(entry: Path) -> None:
    (entry / CONFIG).unlink()
    change_manifest(entry, lambda m: m["files"].pop(CONFIG))
    with pytest.raises(BundleError, match="holds no entry for Triton"):
        registry.find("triton").open(read_bundle(entry).artifact)


# Data for perf_analyzer, and a configuration for Model Analyzer


def requests_in(entry: Path) -> list[Array]:
    """The requests of perf_analyzer.json, read by the rules of its data_loader.cc for the configuration beside it."""
    config = config_of(entry)
    document = json.loads((entry / perf.DATA).read_bytes())
    assert list(document) == ["data"]
    ((name, type, dims),) = tensors(config.input)
    dtype = {"TYPE_FP32": "<f4", "TYPE_FP16": "<f2", "TYPE_UINT8": "u1"}[type]
    found = []
    for step in document["data"]:
        assert list(step) == [name] and list(step[name]) == ["content", "shape"]
        shape = step[name]["shape"]
        assert all(isinstance(n, int) and d in (n, -1) for n, d in zip(shape, dims, strict=True))
        content = base64.b64decode(step[name]["content"]["b64"], validate=True)
        assert len(content) == np.prod(shape) * np.dtype(dtype).itemsize
        found.append(np.frombuffer(content, dtype).reshape(shape))
    return found


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--batch", 3, "--precision", "fp16", "--io-dtype", "fp16"),
        ("--dynamic-size",),
    ],
    ids=str,
)
def test_golden_inputs_are_data_for_perf_analyzer(
    checkpoint: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    entry = tmp_path / "entry"
    exported(checkpoint, "--format", "triton", "--perf-data", *options, "-o", entry)
    golden = golden_tensors.load(entry / GOLDEN)
    size = golden.inputs[golden.traced].shape[1:]
    images = [image for case in golden.inputs.values() if case.shape[1:] == size for image in case]
    found = requests_in(entry)
    assert len(found) == len(images) > 4
    batched = config_of(entry).max_batch_size > 0
    for request, image in zip(found, images, strict=True):
        for one in [request] if batched else request:
            np.testing.assert_array_equal(one, image.astype(request.dtype))
    assert batched or {len(request) for request in found} == {3}
    yaml = pytest.importorskip("yaml", reason="no PyYAML, which timm brings")
    search = yaml.safe_load((entry / perf.SEARCH).read_text())  # options of Model Analyzer's docs/config.md
    flags = {"input-data": perf.DATA, **({"shape": "input:3,20,28"} if "--dynamic-size" in options else {})}
    most = {"run_config_search_max_model_batch_size": MAX_BATCH} if batched else {}
    assert search == {**most, "perf_analyzer_flags": flags}
    assert run("verify", entry).code == 0


def test_data_that_are_not_the_golden_inputs_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    exported(checkpoint, "--format", "triton", "--perf-data", "-o", tmp_path / "entry")
    text = (tmp_path / "entry" / perf.DATA).read_text()
    replace_file(tmp_path / "entry", perf.DATA, text.replace('"shape"', '"shape" ').encode())
    ran = run("verify", tmp_path / "entry")
    assert ran.code == 3 and "perf_analyzer.json does not hold the golden inputs" in ran.err
    ran = run("export", checkpoint, "--format", "triton", "--perf-data", "--no-gate", "-o", tmp_path / "unchecked")
    assert ran.code == 2 and "--perf-data" in ran.err and "holds no golden inputs" in ran.err
