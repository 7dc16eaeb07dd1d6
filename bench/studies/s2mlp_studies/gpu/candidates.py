"""The candidates of the race: this project's bundles, PyTorch in each way, the usual ONNX export, and the products alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias

from s2mlp_bench.backends import OnnxBackend
from s2mlp_bench.baselines import registry as baselines
from s2mlp_bench.candidate import Candidate, Point
from s2mlp_bench.load import candidate_of
from s2mlp_bench.pytorch.place import no_gpu
from s2mlp_bench.pytorch.products import TorchProducts, float_type, shapes_of
from s2mlp_bench.roofline.lower_bound import CUDA, ProductTypes
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.formats.registry import find
from s2mlp_deploy.pipeline.deploy import deploy, deploy_all
from s2mlp_deploy.pipeline.request import ExportRequest, FormatOptions, OutputOptions, Source
from s2mlp_deploy.quantization.settings import Float16, Float32
from s2mlp_deploy.runtime.cuda_session import CudaSession
from s2mlp_deploy.runtime.onnxruntime import RESTING, Loading, OnnxSession
from s2mlp_deploy.schema.precision import FP16, FP32
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.gpu.device import DEVICES, Device
from s2mlp_studies.gpu.parity import obstacle as runtime_obstacle
from s2mlp_studies.gpu.variants import WithoutGemm, write_variant

OURS, OURS_FP32, NO_GRAPH = "onnx-fp16", "onnx-fp32", "onnx-fp16, no CUDA graph"
PRODUCTS, PRODUCTS_FP32 = "products alone, fp16", "products alone, fp32"
COMPILED, CAPTURED, CAPTURED_FP32 = "torch-compile-fp16", "torch-cudagraph-fp16", "torch-cudagraph"
MATMUL, HALF_IO = "onnx-fp16, MatMul + Add", "onnx-fp16, float16 inputs"
"""Other ways to write the float16 graph (variants.py)."""

EAGER, NAIVE = "torch-eager-fp16", "naive-onnx-fp16"


@dataclass(frozen=True)
class Network:
    """The checkpoint of a model, and what is made of it in ``place`` for ``device`` at ``batches``, each when it is first needed."""

    device: Device
    checkpoint: Path
    place: Path
    batches: tuple[int, ...]

    @cached_property
    def bundles(self) -> Mapping[str, Bundle]:
        """The ONNX bundles in float32 and in float16, verified on the processor, by precision."""
        precisions = (Float32(), Float16(target=self.device.target))
        places = {p.row.name: self.place / f"onnx-{p.row.name}" for p in precisions}
        requests = [
            ExportRequest(Source(self.checkpoint), precision=p, output=OutputOptions(places[p.row.name]))
            for p in precisions
        ]
        list(deploy_all(requests))
        return {name: read_bundle(directory) for name, directory in places.items()}

    @cached_property
    def baselines(self) -> baselines.BaselineContext:
        """The weights, for other tools."""
        scratch = self.place / "baselines"
        scratch.mkdir()
        points = [self.device.point(batch) for batch in self.batches]
        bundles = tuple(self.bundles.values())
        return baselines.BaselineContext(bundles, self.bundles[FP32.name], points, scratch, Listener())


Make: TypeAlias = Callable[[Network, Point], Candidate]


def _bundle(precision: str, network: Network, point: Point) -> Candidate:
    return candidate_of(network.bundles[precision], point, tuple(network.bundles.values()))


@dataclass(frozen=True)
class WithoutGraph(OnnxBackend):
    """An ONNX file as ONNX Runtime runs it on CUDA with buffers that stay there, each kernel started for itself."""

    def open(self, point: Point) -> OnnxSession:
        return CudaSession(self.path, Loading(point.provider or "cpu", config=RESTING))


def _without_graph(network: Network, point: Point) -> Candidate:
    ours = _bundle(FP16.name, network, point)
    return replace(ours, source=NO_GRAPH, backend=WithoutGraph(network.bundles[FP16.name].artifact.path))


def _matmul(network: Network, point: Point) -> Candidate:
    path = network.place / "matmul" / "model.onnx"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_variant(network.bundles[FP16.name].artifact.path, path)
    return replace(_bundle(FP16.name, network, point), source=MATMUL, backend=WithoutGemm(path))


def _half_io(network: Network, point: Point) -> Candidate:
    """The bundle whose input and logits are float16, too."""
    directory = network.place / "onnx-fp16-io"
    if not directory.exists():
        precision = Float16(io_dtype="fp16", target=network.device.target)
        deploy(ExportRequest(Source(network.checkpoint), precision=precision, output=OutputOptions(directory)))
    bundle = read_bundle(directory)
    return replace(_bundle(FP16.name, network, point), source=HALF_IO, backend=OnnxBackend(bundle.artifact.path))


def _engine(format: str, network: Network, point: Point) -> Candidate:
    """An engine in float16 that is built for this batch alone."""
    target = find(format)
    assert isinstance(target, Compiler)
    directory = network.place / f"{format}-{point.batch}"
    options = {"batch": f"{point.batch}:{point.batch}:{point.batch}"}
    source = Source(network.bundles[FP16.name].directory)
    request = ExportRequest(
        source, precision=Float16(), format=FormatOptions(format, options), output=OutputOptions(directory)
    )
    bundle = deploy(request).bundle
    return replace(candidate_of(bundle, Point(point.batch), [bundle]), source=f"{format}-fp16")


def _baseline(name: str, network: Network, point: Point) -> Candidate:
    baseline = baselines.BASELINES[name]
    if reason := baseline.missing():
        raise RuntimeMissingError(reason)
    return next(candidate for candidate in baseline.prepare(network.baselines) if candidate.point == point)


def _products(precision: str, network: Network, point: Point) -> Candidate:
    ours = _bundle(precision, network, point)
    manifest = network.bundles[precision].manifest
    dtype = float_type(ProductTypes.of(manifest).arithmetic)
    assert dtype is not None
    products = TorchProducts(shapes_of(manifest.classifier, point), dtype)
    return replace(
        ours,
        source=f"products alone, {precision}",
        kind="bound",
        backend=products,
        limit=None,
        remark="matrix products alone",
    )


@dataclass(frozen=True)
class Contender:
    """A candidate by its name: how it is made, about how many ``seconds`` that and loading take, and the largest batch it is run at."""

    make: Make
    seconds: float = 5
    largest: int = 1024


ENGINES, ENGINE_SECONDS = DEVICES["cuda"].engines, 25

CONTENDERS: Mapping[str, Contender] = {
    OURS: Contender(partial(_bundle, FP16.name)),
    "trt-fp16": Contender(partial(_engine, "trt"), ENGINE_SECONDS),
    "trt-rtx-fp16": Contender(partial(_engine, "trt-rtx"), ENGINE_SECONDS),
    CAPTURED: Contender(partial(_baseline, CAPTURED)),
    PRODUCTS: Contender(partial(_products, FP16.name)),
    OURS_FP32: Contender(partial(_bundle, FP32.name)),
    CAPTURED_FP32: Contender(partial(_baseline, CAPTURED_FP32)),
    NO_GRAPH: Contender(_without_graph),
    MATMUL: Contender(_matmul),
    HALF_IO: Contender(_half_io, 10),
    EAGER: Contender(partial(_baseline, EAGER)),
    COMPILED: Contender(partial(_baseline, COMPILED), 30),
    PRODUCTS_FP32: Contender(partial(_products, FP32.name)),
    NAIVE: Contender(partial(_baseline, NAIVE), 40, largest=1),
}
"""By name, in the order in which they are loaded: where time is short, the last are left out."""


def obstacle(device: Device, name: str) -> str | None:
    """Why the candidate called ``name`` does not run on ``device`` here, in words; None where it does, as far as is known."""
    engine = name.removesuffix(f"-{FP16.name}")
    if engine in ENGINES:
        return (
            runtime_obstacle(device, engine) if engine in device.engines else f"engines of format {engine} are for GPUs"
        )
    if name.startswith(("torch-", "products alone")):
        return no_gpu() if device.point().provider == CUDA else None
    return runtime_obstacle(device, device.provider)
