"""The candidates of the race: this project's bundles, PyTorch in each way, the usual ONNX export, and the products alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
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
from s2mlp_deploy.errors import Error, RuntimeMissingError
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.formats.registry import find
from s2mlp_deploy.pipeline.deploy import deploy, deploy_each
from s2mlp_deploy.pipeline.request import Export, ExportRequest, FormatOptions, OutputOptions, Source
from s2mlp_deploy.quantization.settings import Float16, Float32, PrecisionOptions
from s2mlp_deploy.runtime.cuda_session import CudaSession
from s2mlp_deploy.runtime.onnxruntime import RESTING, Loading, OnnxSession
from s2mlp_deploy.schema.precision import FP16
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.gpu.device import DEVICES, Device
from s2mlp_studies.gpu.parity import obstacle as runtime_obstacle

OURS, OURS_FP32, NO_GRAPH = "onnx-fp16", "onnx-fp32", "onnx-fp16, no CUDA graph"
PRODUCTS, PRODUCTS_FP32 = "products alone, fp16", "products alone, fp32"
COMPILED, CAPTURED, CAPTURED_FP32 = "torch-compile-fp16", "torch-cudagraph-fp16", "torch-cudagraph"
FUSED, HALF_IO = "onnx-fp16, --target cuda", "onnx-fp16, --target cuda, float16 inputs"
"""The float16 graph with operators that ONNX Runtime fuses for CUDA, and with half the bytes to copy."""

EAGER, NAIVE = "torch-eager-fp16", "naive-onnx-fp16"


@dataclass(frozen=True)
class Network:
    """The checkpoint of a model, and what is made of it in ``place`` for ``device`` at ``batches``, each when it is first needed; no bundle
    is begun after ``until``, a moment of time.monotonic."""

    device: Device
    checkpoint: Path
    place: Path
    batches: tuple[int, ...]
    until: float = float("inf")

    @cached_property
    def exports(self) -> Mapping[str, Bundle | Error]:
        """The ONNX bundles by candidate, verified on the processor; an error in place of one that could not be made."""
        precisions: Mapping[str, PrecisionOptions] = {
            OURS_FP32: Float32(),
            OURS: Float16(target=self.device.target),
            FUSED: Float16(target=CUDA),
            HALF_IO: Float16(io_dtype="fp16", target=CUDA),
        }
        requests = [
            ExportRequest(Source(self.checkpoint), precision=p, output=OutputOptions(self.place / f"onnx-{number}"))
            for number, p in enumerate(precisions.values())
        ]
        made = deploy_each(requests)
        return {name: self._next(made) for name in precisions}

    def _next(self, made: Iterator[Export | Error]) -> Bundle | Error:
        if time.monotonic() > self.until:
            return RuntimeMissingError("there was no time left to export it")
        one = next(made)
        return one if isinstance(one, Error) else one.bundle

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """Those that were made."""
        return tuple(one for one in self.exports.values() if isinstance(one, Bundle))

    def bundle(self, name: str) -> Bundle:
        """The bundle of the candidate called ``name``.

        Raises:
            Error: that it could not be made for.
        """
        found = self.exports[name]
        if isinstance(found, Error):
            raise found
        return found

    @cached_property
    def baselines(self) -> baselines.BaselineContext:
        """The weights, for other tools."""
        scratch = self.place / "baselines"
        scratch.mkdir()
        points = [self.device.point(batch) for batch in self.batches]
        return baselines.BaselineContext(self.bundles, self.bundle(OURS_FP32), points, scratch, Listener())


Make: TypeAlias = Callable[[Network, Point], Candidate]


def _ours(name: str, network: Network, point: Point) -> Candidate:
    return replace(candidate_of(network.bundle(name), point, network.bundles), source=name)


@dataclass(frozen=True)
class WithoutGraph(OnnxBackend):
    """An ONNX file as ONNX Runtime runs it on CUDA with buffers that stay there, each kernel started for itself."""

    def open(self, point: Point) -> OnnxSession:
        return CudaSession(self.path, Loading(point.provider or "cpu", config=RESTING))


def _without_graph(network: Network, point: Point) -> Candidate:
    backend = WithoutGraph(network.bundle(OURS).artifact.path)
    return replace(_ours(OURS, network, point), source=NO_GRAPH, backend=backend)


def _engine(format: str, network: Network, point: Point) -> Candidate:
    """An engine in float16 that is built for this batch alone."""
    target = find(format)
    assert isinstance(target, Compiler)
    directory = network.place / f"{format}-{point.batch}"
    if not directory.exists():
        options = {"batch": f"{point.batch}:{point.batch}:{point.batch}"}
        source = Source(network.bundle(OURS).directory)
        deploy(
            ExportRequest(
                source, precision=Float16(), format=FormatOptions(format, options), output=OutputOptions(directory)
            )
        )
    bundle = read_bundle(directory)
    return replace(candidate_of(bundle, Point(point.batch), [bundle]), source=f"{format}-fp16")


def _baseline(name: str, network: Network, point: Point) -> Candidate:
    baseline = baselines.BASELINES[name]
    if reason := baseline.missing():
        raise RuntimeMissingError(reason)
    return next(candidate for candidate in baseline.prepare(network.baselines) if candidate.point == point)


def _products(of: str, name: str, network: Network, point: Point) -> Candidate:
    ours, manifest = _ours(of, network, point), network.bundle(of).manifest
    dtype = float_type(ProductTypes.of(manifest).arithmetic)
    assert dtype is not None
    products = TorchProducts(shapes_of(manifest.classifier, point), dtype)
    return replace(
        ours,
        source=name,
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
    OURS: Contender(partial(_ours, OURS)),
    FUSED: Contender(partial(_ours, FUSED)),
    HALF_IO: Contender(partial(_ours, HALF_IO)),
    "trt-fp16": Contender(partial(_engine, "trt"), ENGINE_SECONDS),
    "trt-rtx-fp16": Contender(partial(_engine, "trt-rtx"), ENGINE_SECONDS),
    CAPTURED: Contender(partial(_baseline, CAPTURED)),
    PRODUCTS: Contender(partial(_products, OURS, PRODUCTS)),
    COMPILED: Contender(partial(_baseline, COMPILED), 20),
    OURS_FP32: Contender(partial(_ours, OURS_FP32)),
    CAPTURED_FP32: Contender(partial(_baseline, CAPTURED_FP32)),
    NO_GRAPH: Contender(_without_graph),
    EAGER: Contender(partial(_baseline, EAGER)),
    PRODUCTS_FP32: Contender(partial(_products, OURS_FP32, PRODUCTS_FP32)),
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
