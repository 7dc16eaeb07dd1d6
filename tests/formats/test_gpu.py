"""Engines on an NVIDIA GPU: built, judged, completed, replayed and timed there. Skipped, with the reason, where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.support import PAPER_CHECKPOINT, TEST_IMAGES, run
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import BundleError, RuntimeMissingError, UsageError
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.gate.gate import gate
from s2mlp_deploy.gate.io_adapter import ArtifactIo
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import (
    EvidenceOptions,
    Export,
    ExportRequest,
    FormatOptions,
    GraphOptions,
    OutputOptions,
    Source,
)
from s2mlp_deploy.quantization.settings import OPTIONS, BFloat16, Float16, Int8, PrecisionOptions
from s2mlp_deploy.runtime import cuda_diagnosis
from s2mlp_deploy.runtime.cuda_session import CudaSession
from s2mlp_deploy.runtime.onnxruntime import Loading, OnnxSession, missing
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.choices import IoDtype
from s2mlp_exporters.tensorrt.engine import EngineFormat
from s2mlp_exporters.tensorrt.runtime import Gpu, find_gpu
from s2mlp_exporters.tensorrt.session import EngineSession
from s2mlp_exporters.tensorrt.trt import TensorRtEngine
from s2mlp_exporters.tensorrt.trt_rtx import TensorRtRtxEngine

GPU = find_gpu()

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(isinstance(GPU, str), reason=f"no GPU: {GPU}")]

FORMATS: dict[str, EngineFormat] = {"trt": TensorRtEngine(), "trt-rtx": TensorRtRtxEngine()}
PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(params=sorted(FORMATS))
def format(request: pytest.FixtureRequest) -> str:
    """Each format whose runtime is installed."""
    name = str(request.param)
    usable(name)
    return name


def usable(name: str) -> None:
    """Skip where the runtime is not installed, or not made for this GPU."""
    assert isinstance(GPU, Gpu)
    runtime = FORMATS[name].runtime
    trt = pytest.importorskip(runtime.module, reason=f"{runtime.title} is not installed")
    if name == "trt-rtx" and GPU.sm.upper() not in trt.ComputeCapability.__members__:
        pytest.skip(f"{runtime.title} {trt.__version__} is not for {GPU}")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """ONNX bundles of the bundled checkpoint by precision, for any batch."""
    place = tmp_path_factory.mktemp("graphs")
    for precision in PRECISIONS:
        options: dict[str, PrecisionOptions] = {"int8": Int8(TEST_IMAGES, target="trt"), "fp16": Float16(target="trt")}
        wanted = options.get(precision) or OPTIONS[precision]()
        deploy(ExportRequest(Source(PAPER_CHECKPOINT), precision=wanted, output=OutputOptions(place / precision)))
    return {precision: place / precision for precision in PRECISIONS}


def engine(source: Path, output: Path, format: str, precision: str, **settings: Any) -> Export:
    """The ONNX bundle ``source`` built and checked here."""
    return deploy(
        ExportRequest(
            Source(source),
            precision=OPTIONS[precision](),
            format=FormatOptions(format, settings),
            output=OutputOptions(output),
        )
    )


def images(count: int, size: tuple[int, int] = (28, 28), seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, *size)).astype(np.float32)


# Parity


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_engine_built_here_keeps_parity_and_is_verified(
    format: str, precision: str, graphs: dict[str, Path], tmp_path: Path
) -> None:
    export = engine(graphs[precision], tmp_path / "engine", format, precision)
    assert export.bundle.manifest.verdict == "passed"
    assert export.verdict is not None and export.verdict.passed
    verified = run("verify", tmp_path / "engine")
    assert verified.code == 0, verified.err


@pytest.mark.parametrize("lowering", ["slice", "gather", "pad", "conv"])
def test_every_lowering_keeps_parity(format: str, lowering: str, tmp_path: Path) -> None:
    export = deploy(
        ExportRequest(
            Source(PAPER_CHECKPOINT),
            graph=GraphOptions(lowering=lowering),
            precision=Float16(),
            format=FormatOptions(format),
            output=OutputOptions(tmp_path / "engine"),
        )
    )
    assert export.verdict is not None and export.verdict.passed


def test_bfloat16_is_judged_where_it_can_run(format: str, tmp_path: Path) -> None:
    assert isinstance(GPU, Gpu)
    if GPU.capability < (8, 0):
        pytest.skip(f"{GPU} has no bfloat16")
    export = deploy(
        ExportRequest(
            Source(PAPER_CHECKPOINT),
            precision=BFloat16(),
            format=FormatOptions(format),
            output=OutputOptions(tmp_path / "engine"),
        )
    )
    assert export.verdict is not None and export.verdict.passed and export.bundle.manifest.verdict == "passed"


def test_an_engine_for_a_range_of_sizes_keeps_parity_at_all_golden_ones(format: str, tmp_path: Path) -> None:
    export = deploy(
        ExportRequest(
            Source(PAPER_CHECKPOINT),
            graph=GraphOptions(dynamic_size=True),
            precision=Float16(),
            format=FormatOptions(format),
            output=OutputOptions(tmp_path / "engine"),
        )
    )
    assert export.verdict is not None and export.verdict.passed


def test_the_gate_catches_an_engine_that_gets_something_wrong(
    format: str, graphs: dict[str, Path], tmp_path: Path
) -> None:
    engine(graphs["fp16"], tmp_path / "engine", format, "fp16")
    bundle = read_bundle(tmp_path / "engine")
    assert bundle.manifest.tolerance is not None
    right = FORMATS[format].open(bundle.artifact)

    class UpsideDown:
        def run(self, images: Array) -> Array:
            return right.run(images[:, :, ::-1])

    expected, tolerance = golden_tensors.load(bundle.golden), bundle.manifest.tolerance
    assert gate(right, expected, tolerance, ArtifactIo.of(bundle.manifest)).passed
    assert not gate(UpsideDown(), expected, tolerance, ArtifactIo.of(bundle.manifest)).passed


def test_a_pending_bundle_is_completed_by_verifying_it(
    graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usable("trt-rtx")
    monkeypatch.setattr(EngineFormat, "cannot_run", lambda *_: "the GPU is not looked at")
    deploy(
        ExportRequest(
            Source(graphs["fp16"]),
            precision=Float16(),
            format=FormatOptions("trt-rtx"),
            evidence=EvidenceOptions(allow_unverified_engine=True),
            output=OutputOptions(tmp_path / "engine"),
        )
    )
    monkeypatch.undo()
    assert read_bundle(tmp_path / "engine").manifest.verdict == "pending a device"
    ran = run("verify", tmp_path / "engine", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["passed"] is True


def test_an_engine_for_other_gpus_is_refused_rather_than_loaded(graphs: dict[str, Path], tmp_path: Path) -> None:
    usable("trt-rtx")
    assert isinstance(GPU, Gpu)
    other = "sm75" if GPU.sm != "sm75" else "sm120"
    with pytest.raises(RuntimeMissingError, match=f"built for tensorrt_rtx .*{other}, and this machine has .*{GPU.sm}"):
        engine(graphs["fp16"], tmp_path / "engine", "trt-rtx", "fp16", compute_capability=(other,))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_engine_is_refused(format: str, graphs: dict[str, Path], tmp_path: Path) -> None:
    bundle = engine(graphs["fp16"], tmp_path / "engine", format, "fp16").bundle
    bundle.artifact.path.write_bytes(b"no engine" * 100)
    with pytest.raises((BundleError, RuntimeMissingError)):
        FORMATS[format].open(bundle.artifact)


def test_an_engine_without_weights_is_filled_from_the_graph_beside_it(
    format: str, graphs: dict[str, Path], tmp_path: Path
) -> None:
    whole = engine(graphs["fp16"], tmp_path / "whole", format, "fp16").bundle
    stripped = engine(graphs["fp16"], tmp_path / "stripped", format, "fp16", strip_weights=True).bundle
    assert stripped.artifact.path.stat().st_size < whole.artifact.path.stat().st_size
    assert run("verify", tmp_path / "stripped").code == 0


def test_a_version_compatible_engine_runs_here_too(graphs: dict[str, Path], tmp_path: Path) -> None:
    usable("trt")
    export = engine(graphs["fp16"], tmp_path / "engine", "trt", "fp16", version_compatible=True)
    assert export.verdict is not None and export.verdict.passed


def test_a_timing_cache_is_written_and_taken_again(graphs: dict[str, Path], tmp_path: Path) -> None:
    usable("trt")
    cache = tmp_path / "timing.cache"
    engine(graphs["fp16"], tmp_path / "first", "trt", "fp16", timing_cache=str(cache))
    assert cache.stat().st_size > 0
    engine(graphs["fp16"], tmp_path / "second", "trt", "fp16", timing_cache=str(cache))


# Running


@pytest.fixture
def running(format: str, graphs: dict[str, Path], tmp_path: Path) -> Iterator[EngineSession]:
    """An fp16 engine for two to five images, loaded."""
    bundle = engine(graphs["fp16"], tmp_path / "engine", format, "fp16", batch="2:3:5").bundle
    session = FORMATS[format].open(bundle.artifact)
    yield session
    session.close()


def test_replaying_gives_the_logits_of_the_first_run(running: EngineSession) -> None:
    x = images(3)
    first = running.run(x)
    for _ in range(5):
        np.testing.assert_array_equal(running.run(x), first)


def test_shapes_may_change_from_run_to_run(running: EngineSession) -> None:
    x = images(5)
    whole = running.run(x)
    for count in (2, 5, 3, 4, 2):
        assert compare(running.run(x[:count]), whole[:count]).relative_l2 < 2e-3


@pytest.mark.parametrize("count", [1, 5, 6, 13])
def test_batches_beyond_the_profile_are_split_or_filled(count: int, running: EngineSession) -> None:
    x = images(count)
    one_by_one = np.concatenate([running.run(x[i : i + 1]) for i in range(count)])
    assert compare(running.run(x), one_by_one).relative_l2 < 2e-3


def test_times_are_positive_and_copies_stand_apart(running: EngineSession) -> None:
    x = images(3)
    before = running.run(x)
    for _ in range(10):
        times = running.time(x)
        assert min(times.to_device_ms, times.compute_ms, times.to_host_ms) > 0
    np.testing.assert_array_equal(running.run(x), before)


def test_a_size_that_the_engine_was_not_built_for_is_refused_and_it_runs_on(running: EngineSession) -> None:
    x = images(3)
    before = running.run(x)
    with pytest.raises(UsageError, match="the engine was built for 2x3x28x28 to 5x3x28x28"):
        running.run(images(3, (32, 32)))
    np.testing.assert_array_equal(running.run(x), before)


def test_sessions_do_not_disturb_each_other_and_give_their_memory_back(
    format: str, graphs: dict[str, Path], tmp_path: Path
) -> None:
    artifact = engine(graphs["fp16"], tmp_path / "engine", format, "fp16").bundle.artifact
    x = images(2)
    first, second = FORMATS[format].open(artifact), FORMATS[format].open(artifact)
    expected = first.run(x)
    np.testing.assert_array_equal(second.run(x), expected)
    first.close()
    np.testing.assert_array_equal(second.run(x), expected)
    second.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_runtime_on_the_same_gpu_agrees(
    format: str, precision: str, graphs: dict[str, Path], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    options = {"use_tf32": "0"}
    other = onnxruntime.InferenceSession(
        graphs[precision] / "model.onnx", providers=[("CUDAExecutionProvider", options)]
    )
    if other.get_providers()[0] != "CUDAExecutionProvider":
        pytest.skip("onnxruntime's CUDA provider does not start here")
    artifact = engine(graphs[precision], tmp_path / "engine", format, precision).bundle.artifact
    session = FORMATS[format].open(artifact)
    x = images(4)
    distance = compare(session.run(x), other.run(None, {"input": x})[0].astype(np.float32))
    assert distance.relative_l2 < {"fp32": 1e-5, "fp16": 4e-3}[precision] and distance.top1_agreement == 1
    session.close()


# Sessions of ONNX Runtime on CUDA


@pytest.fixture
def on_cuda() -> None:
    """Skip where ONNX Runtime has no CUDA provider that starts."""
    if reason := missing("cuda"):
        pytest.skip(reason)


@pytest.fixture
def bound(on_cuda: None, graphs: dict[str, Path]) -> Iterator[CudaSession]:
    """The fp32 graph on CUDA."""
    session = CudaSession(graphs["fp32"] / "model.onnx", Loading("cuda", cuda_graph=True))
    yield session
    session.close()


def test_a_cuda_graph_gives_the_bits_of_a_run_without_one(bound: CudaSession, graphs: dict[str, Path]) -> None:
    plain = CudaSession(graphs["fp32"] / "model.onnx", Loading("cuda"))
    for count in (1, 4, 1, 7, 4):
        x = images(count, seed=count)
        first = bound.run(x)
        np.testing.assert_array_equal(bound.run(x), first)
        np.testing.assert_array_equal(plain.run(x), first)
    assert bound.execution().cuda_graph and not plain.execution().cuda_graph


@pytest.mark.parametrize("io_dtype", ["fp32", "fp16"])
def test_the_graph_with_fewer_kernels_keeps_its_limit(on_cuda: None, io_dtype: IoDtype, tmp_path: Path) -> None:
    precision = Float16(io_dtype, target="cuda")
    deploy(ExportRequest(Source(PAPER_CHECKPOINT), precision=precision, output=OutputOptions(tmp_path / "made")))
    ran = run("verify", tmp_path / "made", "--provider", "cuda")
    assert ran.code == 0, ran.err


def test_without_tf32_it_is_as_exact_as_a_processor(bound: CudaSession, graphs: dict[str, Path]) -> None:
    x = images(8)
    reference = OnnxSession(graphs["fp32"] / "model.onnx").run(x)
    assert compare(bound.run(x), reference).relative_l2 < 2e-6
    rounded = CudaSession(graphs["fp32"] / "model.onnx", Loading("cuda", tf32=True, cuda_graph=True))
    assert isinstance(GPU, Gpu)
    if GPU.capability >= (8, 0):
        assert 2e-6 < compare(rounded.run(x), reference).relative_l2 < 5e-3


def test_shapes_that_come_and_go_stay_right(bound: CudaSession) -> None:
    whole = images(12)
    expected = bound.run(whole)
    for count in (*range(1, 13), *range(12, 0, -1)):
        assert compare(bound.run(whole[:count]), expected[:count]).relative_l2 < 2e-6


def test_threads_take_turns_on_cuda(bound: CudaSession, graphs: dict[str, Path]) -> None:
    other = CudaSession(graphs["fp16"] / "model.onnx", Loading("cuda", cuda_graph=True))
    inputs = [images(2, seed=seed) for seed in range(8)]
    expected = [[session.run(x) for x in inputs] for session in (bound, other)]
    with ThreadPoolExecutor(4) as pool:
        found = [list(pool.map(session.run, inputs)) for session in (bound, other)]
    np.testing.assert_array_equal(found, expected)


def test_closing_a_session_gives_its_memory_back(bound: CudaSession) -> None:
    bound.run(images(4))
    held = cuda_diagnosis.Driver().memory(0)
    bound.close()
    free = cuda_diagnosis.Driver().memory(0)
    if held is None or free is None:
        pytest.skip("NVML does not give the memory of this GPU")
    assert free.free > held.free


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_onnx_bundle_is_verified_on_cuda(on_cuda: None, precision: str, graphs: dict[str, Path]) -> None:
    ran = run("verify", graphs[precision], "--provider", "cuda", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["execution"]["cuda_graph"] and not ran.json["execution"]["tf32"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_export_for_cuda_keeps_parity_and_is_verified(
    on_cuda: None, precision: str, graphs: dict[str, Path], tmp_path: Path
) -> None:
    export = engine(graphs[precision], tmp_path / "engine", "ort", precision, provider="cuda")
    assert export.verdict is not None and export.verdict.passed and export.report.execution is not None
    assert run("verify", tmp_path / "engine").code == 0


def test_a_gpu_that_there_is_not_is_named(on_cuda: None, graphs: dict[str, Path]) -> None:
    ran = run("verify", graphs["fp32"], "--provider", "cuda", "--device", 99)
    assert ran.code == 4 and "--device 99: expected the number of a GPU of this machine" in ran.err
