"""The peak of arithmetic: the best that any runtime here reaches on any of several products.

One runtime on one shape is no peak: another may be faster, and a candidate would stand above it. So the products are those of
two shapes, in every runtime that is here, besides those of the candidates themselves; they are run in turns with the candidates,
so that both meet the same machine, and the fastest run of all counts, since nothing makes a machine faster than it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_bench.backends import ProductsBackend, noise
from s2mlp_bench.candidate import Device, Point
from s2mlp_bench.pytorch.products import TorchProducts, float_type, shapes_of
from s2mlp_bench.roofline.lower_bound import ProductTypes, block_macs, write_twin
from s2mlp_deploy.families.s2mlp.spec import S2MLPSpec, single_stage
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system.timing import Clock
from s2mlp_exporters.openvino.exporter import LOADING, load_openvino, read_model

SHAPES = (
    single_stage(channels=1024, depth=1, patch=1, expansion=1, image_size=(32, 32), classes=1),
    single_stage(channels=384, depth=1, patch=1, expansion=4, image_size=(14, 14), classes=1),
)
"""Products of 1024 × 1024 × 1024, and those of a block of S²-MLP-deep, which fit into caches."""

SHARE = 0.2
"""Of the time that the candidates take, at the most."""

LEAST = 5
"""Runs of each, whatever they take."""

ONNXRUNTIME, OPENVINO, TORCH, CUBLAS = "ONNX Runtime", "OpenVINO", "PyTorch", "cuBLAS"

LARGE, REPEATS = (8192, 8192, 8192), 4
"""A product of 1.1 Top, which fills any GPU, and how often it runs in one graph, so that starting that does not count."""

NO_IMAGES = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class Reached:
    """Operations a second of the fastest run of ``products`` in ``runtime`` (None threads: the runtime's own choice)."""

    precision: str
    threads: int | None
    runtime: str
    products: str
    operations_per_s: float
    device: Device = "cpu"


@dataclass
class Probe:
    """Products to be timed: what runs them once, and how many operations that is."""

    precision: str
    threads: int | None
    runtime: str
    products: str
    operations: int
    run: Callable[[], object]
    device: Device = "cpu"
    fastest_s: float = float("inf")
    runs: int = 0

    def time(self, clock: Clock) -> float:
        """Seconds of one run, which is kept if it is the fastest."""
        start = clock()
        self.run()
        elapsed = clock() - start
        self.fastest_s, self.runs = min(self.fastest_s, elapsed), self.runs + 1
        return elapsed


@dataclass
class Probes:
    """Probes that run between rounds, for a :data:`SHARE` of the time."""

    probes: Sequence[Probe]
    clock: Clock
    _spent_s: float = 0.0
    _start: float | None = None
    _next: int = field(default=0)

    def turn(self) -> None:
        """Run the next probe, unless they have had their share of the time since the first turn."""
        now = self.clock()
        self._start = now if self._start is None else self._start
        if self.probes and self._spent_s <= SHARE * (now - self._start):
            self._spent_s += self.probes[self._next % len(self.probes)].time(self.clock)
            self._next += 1

    def finish(self) -> Iterator[Reached]:
        """Run those that had too few turns, and yield the rate that each has reached."""
        while any(probe.runs < LEAST for probe in self.probes):
            for probe in self.probes:
                if probe.runs < LEAST:
                    probe.time(self.clock)
        for p in self.probes:
            yield Reached(p.precision, p.threads, p.runtime, p.products, p.operations / p.fastest_s, p.device)


def prepare(wanted: Iterable[ProductTypes], threads: Sequence[int | None], scratch: Path) -> Iterator[Probe]:
    """The products of :data:`SHAPES` with each of the types ``wanted``, no layer in float, and each number of ``threads``, in all
    runtimes that are here; files go to ``scratch``.

    Raises:
        RuntimeMissingError: without ONNX Runtime.
    """
    for types in wanted:
        for index, spec in enumerate(SHAPES):
            path = scratch / f"peak{index}-{types.precision}-{types.target}.onnx"
            write_twin(spec, Point(), replace(types, float_layers=()), path)
            for count in threads:
                yield from of_products(spec, Point(threads=count), types, path, _words(spec))


def of_products(
    spec: Spec,
    point: Point,
    types: ProductTypes,
    path: Path,
    products: str,
    runtimes: Sequence[str] = (ONNXRUNTIME, OPENVINO, TORCH),
) -> Iterator[Probe]:
    """The products of ``spec`` at ``point``, which the file ``path`` holds, in those of ``runtimes`` that are here."""
    runs: dict[str, Callable[[], object]] = {}
    if ONNXRUNTIME in runtimes:
        runs[ONNXRUNTIME] = partial(ProductsBackend(path).open(point).run, NO_IMAGES)
    if OPENVINO in runtimes and find_spec("openvino"):
        runs[OPENVINO] = _in_openvino(path, point.threads)
    if TORCH in runtimes and types.in_float32 and find_spec("torch"):
        runs[TORCH] = partial(TorchProducts(shapes_of(spec, point), "float32").open(point).run, NO_IMAGES)
    operations = 2 * point.batch * block_macs(spec, point)
    for runtime, run in runs.items():
        yield Probe(types.precision, point.threads, runtime, products, operations, run)


def on_gpu(wanted: Iterable[ProductTypes], point: Point) -> Iterator[Probe]:
    """Large products at ``point``, which is on a GPU, with each of the float types ``wanted``: those of cuBLAS, by PyTorch."""
    for types in wanted:
        if dtype := float_type(types.arithmetic):
            products = TorchProducts((LARGE,) * REPEATS, dtype)
            run = partial(products.open(point).run, NO_IMAGES)
            words = " × ".join(f"{n:,}" for n in LARGE)
            yield Probe(types.precision, None, CUBLAS, words, products.operations, run, "gpu")


def _words(spec: S2MLPSpec) -> str:
    (stage,), ((h, w),) = spec.stages, spec.map_sizes(spec.image_size)
    return f"{h * w:,} × {stage.channels:,} × {stage.hidden:,}"


def _in_openvino(path: Path, threads: int | None) -> Callable[[], object]:
    openvino, properties = load_openvino(), dict[str, Any](LOADING)
    if threads is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    request = openvino.Core().compile_model(read_model("onnx", path), "CPU", properties).create_infer_request()
    rng = np.random.default_rng(0)
    for port in request.model_inputs:
        dtype = np.dtype(port.get_element_type().to_dtype())
        request.set_tensor(port, openvino.Tensor(noise(rng, dtype, list(port.get_shape()))))
    run: Callable[[], object] = request.infer
    return run
