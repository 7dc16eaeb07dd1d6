"""Baselines: the same weights in other tools, prepared as files in a scratch directory.

They are read back from a float32 ONNX bundle, so no checkpoint is needed. A network of the same shape, MLP-Mixer,
shows what the shift buys; the one without a shift, what it costs. A baseline that a network does not offer is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path

from s2mlp_bench import graphs
from s2mlp_bench.backends import OnnxBackend, OpenVinoBackend
from s2mlp_bench.baselines import mixer
from s2mlp_bench.candidate import Backend, Candidate, Point
from s2mlp_bench.load import INT8_LIMIT
from s2mlp_bench.pytorch.backend import TorchBackend, Way
from s2mlp_bench.weights_from_onnx import Model, read, readable
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_manifest
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.graph import writer
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.quantization.calibration import noise
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS
from s2mlp_deploy.schema.precision import FP16, FP32, INT8, FloatType, Precision
from s2mlp_deploy.schema.size import Size
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.process_cost import measure
from s2mlp_deploy.system.progress import Listener

FLOAT_LIMIT = 1e-4
"""Relative L2 beyond which a float32 baseline computes another network: rounding alone costs about 1e-6."""

HALF_LIMIT = 0.05
"""The same at float16, where rounding costs about 1e-3; the popular statements, where they are wrong, 0.2."""

ANOTHER = "another network"
NOISE = "calibrated on noise, for its speed alone"


@dataclass(frozen=True)
class Traits:
    """What sets a baseline apart from the reference at float32.

    Attributes:
        precision: The precision that it computes in.
        limit: Relative L2 from the bundle's golden logits that it must keep; None where it computes something else.
        remark: A note on what it computes.
        macs: Multiply-adds of one image; None: as many as the bundle's.
        bundle: The bundle whose inputs it gets; None: the reference.
    """

    precision: str = FP32.name
    limit: float | None = FLOAT_LIMIT
    remark: str = ""
    macs: int | None = None
    bundle: Bundle | None = None


@dataclass(frozen=True)
class BaselineContext:
    """Sources of the baselines: the bundles of the benchmark, the one in float32 that holds the weights, and where
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
                self.reference.artifact.path, noise(self.model.spec), self.scratch / "static"
            )

    def candidate(
        self,
        source: str,
        backend: Backend,
        point: Point,
        traits: Traits | None = None,
    ) -> Candidate:
        """A baseline that gets the inputs of the bundle that ``traits`` name, else of the reference."""
        traits = traits or Traits()
        bundle = traits.bundle or self.reference
        macs = bundle.manifest.classifier.macs(point.size) if traits.macs is None else traits.macs
        return Candidate(
            source,
            "baseline",
            backend,
            point,
            traits.precision,
            macs,
            traits.limit,
            traits.remark,
            None,
            bundle.directory,
        )


def prepare(
    names: Sequence[str], bundles: Sequence[Bundle], points: Sequence[Point], scratch: Path, listener: Listener
) -> Iterator[Candidate]:
    """The baselines called ``names`` at every point.

    Raises:
        UsageError: for an unknown name, without a float32 ONNX bundle, or where the network does not offer one, or one
            cannot run with these settings.
        RuntimeMissingError: where a package is missing.
    """
    if not names:
        return
    for name in names:
        if name not in BASELINES:
            raise UsageError(f"--baseline {name!r} is unknown: expected {', '.join(BASELINES)}, or all")
        if reason := BASELINES[name].missing():
            raise RuntimeMissingError(f"--baseline {name} cannot run here, {reason}")
    reference = next((bundle for bundle in bundles if readable(bundle.manifest)), None)
    if reference is None:
        raise UsageError(
            "--baseline needs the weights in float32: give an fp32 bundle of format onnx, without --input or --answer, among the "
            "bundles"
        )
    for name in names:
        reason = BASELINES[name].refusal(reference.manifest.classifier) or BASELINES[name].elsewhere(points)
        if reason:
            raise UsageError(f"--baseline {name}: {reason}, so leave it out")
    context = BaselineContext(bundles, reference, points, scratch, listener)
    for name in dict.fromkeys(names):
        yield from BASELINES[name].prepare(context)


def all_offered(directories: Sequence[Path], points: Sequence[Point], listener: Listener) -> tuple[str, ...]:
    """The names of all baselines that run at ``points`` and that the network in the first bundle with its weights offers.

    Warn of those that this network does not offer.

    Raises:
        BundleError: where a directory is no bundle.
    """
    manifests = [read_manifest(directory) for directory in directories]
    spec = next((manifest.classifier for manifest in manifests if readable(manifest)), None)
    here = {name: baseline for name, baseline in BASELINES.items() if not baseline.elsewhere(points)}
    refused = {name: r for name, baseline in here.items() if spec and (r := baseline.refusal(spec))}
    for name, reason in refused.items():
        listener.warn(f"the baseline {name} is left out: {reason}")
    return tuple(name for name in here if name not in refused)


LIMITS: Mapping[Precision, float] = {FP32: FLOAT_LIMIT, FP16: HALF_LIMIT}


def _name(baseline: str, row: Precision) -> str:
    """The name of a baseline at the precision ``row``, which float32 leaves out."""
    return f"{baseline}-{row.name}" if row.rounds else baseline


def _torch(way: Way, row: Precision, context: BaselineContext) -> Iterator[Candidate]:
    for point in context.points:
        backend = TorchBackend(context.torch_directory, way, row.on_gpu.outputs)
        yield context.candidate(_name(f"torch-{way}", row), backend, point, Traits(row.name, LIMITS[row]))


def _naive_onnx(row: Precision, context: BaselineContext) -> Iterator[Candidate]:
    files: dict[tuple[int, Size], Path] = {}
    for point in context.points:
        size = point.size or context.model.spec.image_size
        key = point.batch, size
        if key not in files:
            files[key] = context.scratch / f"{_name('naive', row)}{len(files)}" / "model.onnx"
            with context.listener.step("torch.onnx.export of the usual code"):
                measure(naive_command(context.torch_directory, point.batch, size, files[key], row.on_gpu.outputs))
        traits = Traits(row.name, LIMITS[row])
        yield context.candidate(_name("naive-onnx", row), OnnxBackend(files[key]), point, traits)


def _no_shift(context: BaselineContext) -> Iterator[Candidate]:
    from s2mlp_bench.baselines.noshift import NoShift

    path = context.scratch / "none" / "model.onnx"
    path.parent.mkdir()
    swept = any(point.size for point in context.points)
    spec, weights = context.model.spec, context.model.weights
    axes = Axes(None, None if swept else spec.image_size)
    writer.write(family_of(spec).emit(spec, weights, NoShift(), axes), path)
    for point in context.points:
        yield context.candidate("no-shift", OnnxBackend(path), point, Traits(limit=None, remark=ANOTHER))


def _openvino(context: BaselineContext) -> Iterator[Candidate]:
    for bundle in context.bundles:
        if bundle.manifest.format == "onnx" and bundle.manifest.interface == FLOAT_LOGITS:
            for point in context.points:
                backend = OpenVinoBackend(bundle.artifact.path)
                tolerance = bundle.manifest.tolerance
                limit, golden_bundle = (tolerance.relative_l2, bundle) if tolerance else (INT8_LIMIT, None)
                yield context.candidate(
                    f"openvino, {bundle.directory.name}",
                    backend,
                    point,
                    Traits(bundle.manifest.precision, limit, bundle=golden_bundle),
                )


def _ort_static(context: BaselineContext) -> Iterator[Candidate]:
    for point in context.points:
        backend = OnnxBackend(context.static_file)
        yield context.candidate("ort-static", backend, point, Traits(INT8.name, limit=None, remark=NOISE))


def _openvino_static(context: BaselineContext) -> Iterator[Candidate]:
    for point in context.points:
        backend = OpenVinoBackend(context.static_file)
        yield context.candidate("openvino-static", backend, point, Traits(INT8.name, limit=None, remark=NOISE))


def _mixer(context: BaselineContext) -> Iterator[Candidate]:
    spec = context.model.spec
    files: dict[Size, Path] = {}
    for point in context.points:
        size = point.size or spec.image_size
        if size not in files:
            files[size] = graphs.write(mixer.lower(spec, Axes(None, size)), context.scratch / f"mixer{len(files)}")
        macs = mixer.like(spec, size).macs()
        yield context.candidate("mixer", OnnxBackend(files[size]), point, Traits(limit=None, remark=ANOTHER, macs=macs))


def _without_shift(spec: Spec) -> str | None:
    return None if spec.shifts else f"{family_of(spec).title} has no shift"


CPU, CUDA = "cpu", "cuda"


@dataclass(frozen=True)
class Baseline:
    """A baseline: prepares its candidates, names the module that it needs and the command that installs that.

    ``refusal`` says in words why a network does not offer it; None where it does. ``providers`` are those of ``--provider`` that it
    runs on.
    """

    prepare: Callable[[BaselineContext], Iterator[Candidate]]
    module: str
    remedy: str
    refusal: Callable[[Spec], str | None] = lambda spec: None
    providers: tuple[str, ...] = (CPU,)

    def missing(self) -> str | None:
        """The missing package, in words; None where none is."""
        return None if find_spec(self.module) else f"it needs {self.module}: {self.remedy}"

    def elsewhere(self, points: Sequence[Point]) -> str | None:
        """Why it does not run at one of ``points``, in words; None where it runs at all."""
        wanted = {point.provider or CPU for point in points}
        if wanted <= set(self.providers):
            return None
        return f"it runs with --provider {' or '.join(self.providers)} alone"


TORCH = ("torch", "pip install torch")
ONNXRUNTIME = ("onnxruntime", "pip install onnxruntime")
ONNXSCRIPT = ("onnxscript", pip_install("bench"))
ANYWHERE = (CPU, CUDA)

BASELINES = {
    "torch-eager": Baseline(partial(_torch, "eager", FP32), *TORCH, providers=ANYWHERE),
    "torch-eager-fp16": Baseline(partial(_torch, "eager", FP16), *TORCH, providers=(CUDA,)),
    "torch-compile": Baseline(partial(_torch, "compile", FP32), *TORCH, providers=ANYWHERE),
    "torch-compile-fp16": Baseline(partial(_torch, "compile", FP16), *TORCH, providers=(CUDA,)),
    "torch-cudagraph": Baseline(partial(_torch, "cudagraph", FP32), *TORCH, providers=(CUDA,)),
    "torch-cudagraph-fp16": Baseline(partial(_torch, "cudagraph", FP16), *TORCH, providers=(CUDA,)),
    "naive-onnx": Baseline(partial(_naive_onnx, FP32), *ONNXSCRIPT, providers=ANYWHERE),
    "naive-onnx-fp16": Baseline(partial(_naive_onnx, FP16), *ONNXSCRIPT, providers=(CUDA,)),
    "openvino": Baseline(_openvino, "openvino", pip_install("openvino")),
    "mixer": Baseline(_mixer, *ONNXRUNTIME, mixer.refusal, ANYWHERE),
    "no-shift": Baseline(_no_shift, *ONNXRUNTIME, _without_shift, ANYWHERE),
    "ort-static": Baseline(_ort_static, *ONNXRUNTIME),
    "openvino-static": Baseline(_openvino_static, "openvino", pip_install("openvino")),
}
"""PyTorch, eager, with its compiler, and captured by hand as a CUDA graph; ``torch.onnx.export`` of the usual code; every ONNX
bundle in OpenVINO; an MLP-Mixer of the same width, depth and patch; the graph without any shift; and onnxruntime's static
quantization with its defaults, in ONNX Runtime and in OpenVINO. Half precision is for GPUs: processors widen it."""


def naive_command(
    directory: Path, batch: int, size: Size, destination: Path, dtype: FloatType = "float32"
) -> list[str]:
    """The command that exports the usual code (for a shift, the slice assignments) with ``torch.onnx.export(dynamo=True)``."""
    arguments = (str(directory), str(batch), *map(str, size), str(destination), dtype)
    return [sys.executable, "-m", "s2mlp_bench.baselines.naive", *arguments]
