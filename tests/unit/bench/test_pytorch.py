"""PyTorch as a candidate: on the processor, and on a GPU, for which a recorded stand-in keeps the clock and captures graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.fake_gpu import Recorded
from helpers.support import run, save_checkpoint, small_spec
from s2mlp_bench import weights_from_onnx
from s2mlp_bench.candidate import Point
from s2mlp_bench.pytorch import place as places
from s2mlp_bench.pytorch.backend import TorchBackend, Way
from s2mlp_bench.pytorch.place import Processor, place_of
from s2mlp_bench.pytorch.products import (
    TorchProducts,
    TorchProductsSession,
    copy_rate,
    float_type,
    shapes_of,
)
from s2mlp_bench.pytorch.session import DeviceSession
from s2mlp_bench.roofline.lower_bound import block_macs
from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.gate.distance import compare
from s2mlp_deploy.runtime.session import TimedSession
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.precision import BF16, FP16, FP32, INT8

SPEC = small_spec(channels=16)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array, Array]:
    """Weights for PyTorch, golden images of them, and their logits."""
    directory = tmp_path_factory.mktemp("weights")
    checkpoint = save_checkpoint(directory / "small.pt", SPEC)
    assert run("export", checkpoint, "-o", directory / "bundle").code == 0
    bundle = read_bundle(directory / "bundle")
    golden = golden_tensors.load(bundle.golden)
    saved = weights_from_onnx.read(bundle).save(directory / "torch")
    return saved, golden.inputs["noise"][:3], golden.logits["noise"][:3]


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("float16", 0.02), ("bfloat16", 0.1)])
def test_each_type_computes_the_network_as_exactly_as_it_can(
    weights: tuple[Path, Array, Array], dtype: str, limit: float
) -> None:
    directory, images, expected = weights
    logits = TorchBackend(directory, "eager", dtype).open(Point(threads=1)).run(images)  # type: ignore[arg-type]
    distance = compare(logits, expected).relative_l2
    assert logits.dtype == np.float32 and distance < limit and (dtype == "float32" or distance > 1e-5)


@pytest.mark.parametrize("way", ["eager", "cudagraph"])
def test_on_a_gpu_buffers_are_kept_by_shape_and_each_shape_is_captured_once(
    weights: tuple[Path, Array, Array], monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    directory, images, expected = weights
    gpu = Recorded()
    monkeypatch.setattr("s2mlp_bench.pytorch.backend.place_of", lambda point: gpu)
    session = TorchBackend(directory, way).open(Point(provider="cuda"))
    for _ in range(2):
        for count in (3, 1, 2):
            assert compare(session.run(images[:count]), expected[:count]).relative_l2 < 1e-5
    assert gpu.calls.count("host_buffer") == 3
    assert gpu.calls.count("capture") == (3 if way == "cudagraph" else 0)
    assert gpu.calls.count("replay") == (6 if way == "cudagraph" else 0)


def test_copies_and_computation_are_timed_apart(weights: tuple[Path, Array, Array]) -> None:
    """The stand-in's clock stands at 1, 4, 9, 16 in turn."""
    session = DeviceSession(TorchBackend(weights[0])._module(Recorded()), Recorded(), "float16", captured=False)
    session._model.half()  # type: ignore[attr-defined]
    assert isinstance(session, TimedSession)
    times = session.time(weights[1])
    assert (times.to_device_ms, times.compute_ms, times.to_host_ms) == pytest.approx((3, 5, 7))


def test_the_shift_of_a_gpus_model_is_the_same_function(weights: tuple[Path, Array, Array]) -> None:
    """There it is a cat of slices; the processor's is the definition."""
    backend = TorchBackend(weights[0])
    ours, theirs = backend._module(Processor()), backend._module(Recorded())
    images = torch.from_numpy(weights[1])
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


def test_a_graph_cannot_be_captured_on_the_processor(weights: tuple[Path, Array, Array]) -> None:
    with pytest.raises(UsageError, match="add --provider cuda"):
        TorchBackend(weights[0], "cudagraph").open(Point())


def test_a_gpu_that_is_not_there_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(RuntimeMissingError, match="built without CUDA: install"):
        place_of(Point(provider="cuda"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeMissingError, match="finds no NVIDIA GPU: nvidia-smi"):
        place_of(Point(provider="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert places.no_gpu() is None and place_of(Point(provider="cuda")).captures
    with pytest.raises(UsageError, match="cpu and cuda alone"):
        place_of(Point(provider="directml"))


# Products


def test_the_products_are_those_of_the_blocks() -> None:
    point = Point(batch=5)
    products = TorchProducts(shapes_of(SPEC, point), "float32")
    assert products.operations == 2 * 5 * block_macs(SPEC, point)
    c, c_bar = 16, SPEC.stages[0].hidden
    assert products.size_bytes == 4 * SPEC.depth * (2 * c * c + 2 * c * c_bar)


def test_products_are_one_graph_that_reads_memory_which_is_kept() -> None:
    gpu = Recorded()
    session = TorchProductsSession(TorchProducts(((3, 5, 7), (3, 7, 5), (3, 5, 7)), "float32"), gpu)
    assert session.run(np.empty((0, 0), np.float32)).size == 0
    assert session.time(np.empty((0, 0), np.float32)).compute_ms == pytest.approx(4**2 - 3**2)
    assert gpu.calls.count("capture") == 1 and gpu.calls.count("replay") == 2


def test_only_products_of_one_float_type_have_a_bound_on_a_gpu() -> None:
    types = {row.name: float_type(row.on_gpu) for row in (FP32, FP16, BF16, INT8)}
    assert types == {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": None}
    assert FP16.on_cpu and float_type(FP16.on_cpu) == "float32"  # weights are widened when they are loaded


def test_the_rate_of_copies_counts_what_is_read_and_what_is_written() -> None:
    """The stand-in's moments lie further apart with each; the first copy does not count."""
    gpu = Recorded()
    assert copy_rate(gpu, 1000) == pytest.approx(2 * 1000 / ((3**2 - 2**2) / 1e3))
