"""int8 on a GPU is timed against float16 of the same graph, and a warning has both times where it wins nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from helpers.support import run, save_checkpoint, small_spec
from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import CompilerError
from s2mlp_deploy.pipeline import int8_gain
from s2mlp_deploy.pipeline.int8_gain import warn_without_gain, without_quantization
from s2mlp_deploy.pipeline.request import EvidenceOptions, ExportRequest, FormatOptions, Source
from s2mlp_deploy.pipeline.tune.race import Standing
from s2mlp_deploy.quantization.settings import Float16, Int8, PrecisionOptions
from s2mlp_deploy.runtime.onnxruntime import OnnxSession
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system.progress import Listener, Progress
from s2mlp_exporters.onnxruntime.exporter import OrtModel

SHAPE = (3, 20, 28)


@pytest.fixture(scope="module", params=["trt", "x86"])
def bundle(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Bundle:
    """An int8 ONNX bundle, by a recipe with float biases and by one with integers."""
    place = tmp_path_factory.mktemp(f"int8-{request.param}")
    np.save(place / "images.npy", np.random.default_rng(0).standard_normal((64, *SHAPE)).astype(np.float32))
    checkpoint = save_checkpoint(place / "small.pt", small_spec())
    options = ("--precision", "int8", "--target", request.param, "--calibration", place / "images.npy")
    ran = run("export", checkpoint, *options, "--min-agreement", 0, "-o", place / "int8")
    assert ran.code == 0, ran.err
    return read_bundle(place / "int8")


@dataclass
class Gpu(OrtModel):
    """A format for a GPU: runs take as long, by the clock, as ``ms`` says for the precision of what they were compiled of."""

    ms: dict[str, float]
    now: float = 0.0
    compiled: list[str] = field(default_factory=list)
    fails: bool = False
    obstacle: str | None = None

    def for_gpu(self, options: Any) -> bool:
        return True

    def cannot_run(self, options: Any) -> str | None:
        return self.obstacle

    def compile(self, bundle: Bundle, destination: Path, options: Any) -> Artifact:
        if self.fails:
            raise CompilerError("no kernel for this")
        self.compiled.append(bundle.manifest.precision)
        return Artifact(destination, bundle.manifest.precision, ())

    def open(self, artifact: Artifact) -> Any:
        precision = "fp16" if artifact.main == "fp16" else "int8"

        class Session:
            run: Callable[[Any, Array], None] = lambda _, images: self.advance(self.ms[precision])

        return Session()

    def advance(self, ms: float) -> None:
        self.now += ms / 1e3

    def clock(self) -> float:
        return self.now


@dataclass
class Heard(Listener):
    """The warnings."""

    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def warnings_of(
    bundle: Bundle, gpu: Gpu, precision: PrecisionOptions | None = None, evidence: EvidenceOptions | None = None
) -> list[str]:
    heard = Heard()
    request = ExportRequest(
        Source(bundle.directory),
        precision=precision or Int8(),
        format=FormatOptions("ort"),
        evidence=evidence or EvidenceOptions(),
    )
    warn_without_gain(bundle, bundle, gpu, request, Progress(heard), gpu.clock)
    return heard.warnings


@pytest.mark.parametrize("int8_ms", [2.0, 2.46, 3.0])
def test_int8_that_is_not_two_percent_faster_is_told_with_both_times(bundle: Bundle, int8_ms: float) -> None:
    gpu = Gpu({"int8": int8_ms, "fp16": 2.5})
    found = warnings_of(bundle, gpu)
    assert gpu.compiled == ["fp16"]
    if int8_ms == 2.0:
        assert found == []
        return
    (warning,) = found
    assert f"int8 takes {int8_ms:.3g} ms for a batch of 1 on this GPU and fp16 2.5 ms" in warning
    assert "not at least 2% faster" in warning and "--precision fp16" in warning


@pytest.mark.parametrize(
    ("gpu", "precision", "evidence"),
    [
        (Gpu({}), Float16(), None),
        (Gpu({}, obstacle="no NVIDIA driver is installed"), Int8(), None),
        (Gpu({}), Int8(), EvidenceOptions(time_int8=False)),
    ],
    ids=["another precision", "no GPU", "not wanted"],
)
def test_nothing_else_is_timed(
    bundle: Bundle, gpu: Gpu, precision: PrecisionOptions, evidence: EvidenceOptions | None
) -> None:
    assert warnings_of(bundle, gpu, precision, evidence) == [] and gpu.compiled == []


def test_a_comparison_that_fails_is_a_warning(bundle: Bundle) -> None:
    (warning,) = warnings_of(bundle, Gpu({}, fails=True))
    assert "could not be measured: no kernel for this" in warning


def test_processors_are_not_timed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gpu, "for_gpu", OrtModel.for_gpu)
    gpu = Gpu({})
    assert warnings_of(bundle, gpu) == [] and gpu.compiled == []


def test_the_float16_graph_has_the_layers_of_the_int8_graph_and_runs(bundle: Bundle, tmp_path: Path) -> None:
    twin = without_quantization(bundle, tmp_path)
    assert (twin.manifest.precision, twin.manifest.quantization) == ("fp16", None)
    graph = onnx.load(twin.artifact.path).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"QuantizeLinear", "DequantizeLinear"}
    products = [n for n in onnx.load(bundle.artifact.path).graph.node if n.op_type in ("Gemm", "Conv")]
    assert [n.op_type for n in graph.node if n.op_type in ("Gemm", "Conv")] == [n.op_type for n in products]
    assert {tensor.data_type for tensor in graph.initializer} <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    images = np.random.default_rng(1).standard_normal((2, *SHAPE)).astype(np.float32)
    int8, float16 = (OnnxSession(one.artifact.path).run(images) for one in (bundle, twin))
    assert np.linalg.norm(float16 - int8) < 0.05 * np.linalg.norm(int8)


def test_exports_for_a_gpu_print_the_warning(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def race(graph: Bundle, made: Bundle, *_: object) -> tuple[Standing, int]:
        seen.append((graph.manifest.format, made.manifest.format))
        return Standing({"int8": [3.0] * 9, "fp16": [2.5] * 9}, ("int8", "fp16"), (2,)), 1

    monkeypatch.setattr(int8_gain, "_race", race)
    monkeypatch.setattr(OrtModel, "for_gpu", lambda *_: True)
    ran = run("export", bundle.directory, "--format", "ort", "-o", tmp_path / "engine")
    assert ran.code == 0 and seen == [("onnx", "ort")]
    assert "int8 takes 3 ms for a batch of 1 on this GPU and fp16 2.5 ms" in " ".join(ran.err.split())
