"""Baselines: what the same weights do in other hands, prepared as files in a scratch directory.

They are read back from a float32 ONNX bundle, so no checkpoint is needed. A network of the same shape, MLP-Mixer,
shows what the shift buys; the one without a shift, what it costs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from s2mlp_bench import graphs
from s2mlp_bench.backends import OnnxWay, OpenVinoWay, TorchWay
from s2mlp_bench.baselines import mixer
from s2mlp_bench.candidate import Contestant, Point, Way
from s2mlp_bench.load import INT8_LIMIT
from s2mlp_bench.process import measure
from s2mlp_bench.weights_from_onnx import Model, read, readable
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.families.s2mlp.emit import emit
from s2mlp_deploy.graph import writer
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS
from s2mlp_deploy.schema.precision import FP32, INT8
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.progress import Listener

FLOAT_LIMIT = 1e-4
"""Relative L2 beyond which a float32 baseline computes another network: rounding alone costs about 1e-6."""

ANOTHER = "another network"
NOISE = "calibrated on noise, for its speed alone"


@dataclass(frozen=True)
class Work:
    """What baselines are made from: the bundles of the contest, the one in float32 that holds the weights, and where
    files go."""

    bundles: Sequence[Bundle]
    reference: Bundle
    points: Sequence[Point]
    scratch: Path
    listener: Listener

    @cached_property
    def model(self) -> Model:
        """The weights."""
        return read(self.reference)

    @cached_property
    def torch_directory(self) -> Path:
        """The weights for PyTorch."""
        return self.model.save(self.scratch / "torch")

    @cached_property
    def static_file(self) -> Path:
        """onnxruntime's own static quantization of the reference, with its defaults."""
        with self.listener.step("onnxruntime's own static quantization"):
            return graphs.write_quantized_statically(
                self.reference.artifact.path, graphs.noise(self.model.spec), self.scratch / "static"
            )

    def contestant(
        self, source: str, way: Way, point: Point, *, precision: str = FP32.name, limit: float | None = FLOAT_LIMIT,
        remark: str = "", macs: int | None = None, bundle: Bundle | None = None,
    ) -> Contestant:  # fmt: skip
        """A baseline that is asked what ``bundle`` (the reference) is asked."""
        asks = bundle or self.reference
        spec = asks.manifest.spec
        counted = spec.macs(point.size) if macs is None else macs
        return Contestant(source, "baseline", way, point, precision, counted, limit, remark, None, asks.directory)


def prepare(
    names: Sequence[str], bundles: Sequence[Bundle], points: Sequence[Point], scratch: Path, listener: Listener
) -> Iterator[Contestant]:
    """The baselines called ``names`` at every point.

    Raises:
        UsageError: for an unknown name, without a float32 ONNX bundle, or where one cannot run as asked.
        RuntimeMissingError: where a package is missing.
    """
    if not names:
        return  # and ask for nothing
    for name in names:
        if name not in BASELINES:
            raise UsageError(f"--baseline {name!r} is unknown: expected {', '.join(BASELINES)}, or all")
        if reason := BASELINES[name].missing():
            raise RuntimeMissingError(f"--baseline {name} cannot run here, {reason}")
    reference = next((bundle for bundle in bundles if readable(bundle)), None)
    if reference is None:
        raise UsageError(
            "--baseline needs the weights in float32: give an fp32 bundle of format onnx, without --input or --answer, among the "
            "bundles"
        )
    if any(point.provider not in (None, "cpu") for point in points):
        raise UsageError("--baseline: baselines run on the CPU, so leave out either them or --provider")
    work = Work(bundles, reference, points, scratch, listener)
    for name in dict.fromkeys(names):
        yield from BASELINES[name].prepare(work)


def _torch_eager(work: Work) -> Iterator[Contestant]:
    for point in work.points:
        yield work.contestant("torch-eager", TorchWay(work.torch_directory, compiled=False), point)


def _torch_compile(work: Work) -> Iterator[Contestant]:
    for point in work.points:
        yield work.contestant("torch-compile", TorchWay(work.torch_directory, compiled=True), point)


def _naive_onnx(work: Work) -> Iterator[Contestant]:
    files: dict[tuple[int, Size], Path] = {}
    for point in work.points:
        size = point.size or work.model.spec.image_size
        key = point.batch, size
        if key not in files:
            files[key] = work.scratch / f"naive{len(files)}" / "model.onnx"
            with work.listener.step("torch.onnx.export of the slice-assignment code"):
                measure(naive_command(work.torch_directory, point.batch, size, files[key]))
        yield work.contestant("naive-onnx", OnnxWay(files[key]), point)


def _no_shift(work: Work) -> Iterator[Contestant]:
    from s2mlp_bench.baselines.noshift import NoShift

    path = work.scratch / "none" / "model.onnx"
    path.parent.mkdir()
    swept = any(point.size for point in work.points)
    axes = Axes(None, None if swept else work.model.spec.image_size)
    writer.write(emit(work.model.spec, work.model.weights, NoShift(), axes), path)
    for point in work.points:
        yield work.contestant("no-shift", OnnxWay(path), point, limit=None, remark=ANOTHER)


def _openvino(work: Work) -> Iterator[Contestant]:
    for bundle in work.bundles:
        if bundle.manifest.format == "onnx" and bundle.manifest.interface == FLOAT_LOGITS:
            for point in work.points:
                way = OpenVinoWay(bundle.artifact.path)
                tolerance = bundle.manifest.tolerance
                limit, asks = (tolerance.relative_l2, bundle) if tolerance else (INT8_LIMIT, None)
                yield work.contestant(
                    f"openvino, {bundle.directory.name}", way, point, precision=bundle.manifest.precision, limit=limit, bundle=asks
                )  # fmt: skip


def _ort_static(work: Work) -> Iterator[Contestant]:
    for point in work.points:
        way = OnnxWay(work.static_file)
        yield work.contestant("ort-static", way, point, precision=INT8.name, limit=None, remark=NOISE)


def _openvino_static(work: Work) -> Iterator[Contestant]:
    for point in work.points:
        way = OpenVinoWay(work.static_file)
        yield work.contestant("openvino-static", way, point, precision=INT8.name, limit=None, remark=NOISE)


def _mixer(work: Work) -> Iterator[Contestant]:
    spec = work.model.spec
    files: dict[Size, Path] = {}
    for point in work.points:
        size = point.size or spec.image_size
        if size not in files:
            files[size] = graphs.write(mixer.lower(spec, Axes(None, size)), work.scratch / f"mixer{len(files)}")
        macs = mixer.macs(spec, size)
        yield work.contestant("mixer", OnnxWay(files[size]), point, limit=None, remark=ANOTHER, macs=macs)


@dataclass(frozen=True)
class Baseline:
    """What prepares a baseline's contestants, the module that it needs, and the command that installs it."""

    prepare: Callable[[Work], Iterator[Contestant]]
    module: str
    remedy: str

    def missing(self) -> str | None:
        """What lacks here, in words; None where nothing does."""
        return None if find_spec(self.module) else f"it needs {self.module}: {self.remedy}"


BASELINES = {
    "torch-eager": Baseline(_torch_eager, "torch", "pip install torch"),
    "torch-compile": Baseline(_torch_compile, "torch", "pip install torch"),
    "naive-onnx": Baseline(_naive_onnx, "onnxscript", pip_install("bench")),
    "openvino": Baseline(_openvino, "openvino", pip_install("openvino")),
    "mixer": Baseline(_mixer, "onnxruntime", "pip install onnxruntime"),
    "no-shift": Baseline(_no_shift, "onnxruntime", "pip install onnxruntime"),
    "ort-static": Baseline(_ort_static, "onnxruntime", "pip install onnxruntime"),
    "openvino-static": Baseline(_openvino_static, "openvino", pip_install("openvino")),
}
"""PyTorch, with and without its compiler; ``torch.onnx.export`` of the widely copied code; every ONNX bundle in OpenVINO;
an MLP-Mixer of the same width, depth and patch; the graph without any shift; and onnxruntime's static quantization with
its defaults, in ONNX Runtime and in OpenVINO."""


def naive_command(directory: Path, batch: int, size: Size, destination: Path) -> list[str]:
    """The command that exports the slice-assignment code with ``torch.onnx.export(dynamo=True)``."""
    return [
        sys.executable,
        "-m",
        "s2mlp_bench.baselines.naive",
        str(directory),
        str(batch),
        *map(str, size),
        str(destination),
    ]
