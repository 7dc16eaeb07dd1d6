"""deploy(): from a checkpoint to a verified bundle. Read this first; it is the whole story.

    checkpoint ─▶ which shift? ─▶ oracle ─▶ golden tensors
               └▶ graph ─▶ folds ─▶ onnxsim ─▶ precision ─▶ artifact ─▶ gate ─▶ bundle

Nothing is published unless the gate passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from s2mlp_deploy import (
    __version__,
    artifact,
    exporter,
    golden,
    judge,
    machine,
    memory,
    oracle,
    parity,
    precision,
    reference,
)
from s2mlp_deploy import lowering as lowerings
from s2mlp_deploy.artifact import Artifact, Bundle
from s2mlp_deploy.digest import sha256
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.exporter import Exporter, Lowered, scratch_session
from s2mlp_deploy.graph import INPUT, OPSET, OUTPUT, Axes
from s2mlp_deploy.int8 import Quantized, to_int8
from s2mlp_deploy.judge import Judged
from s2mlp_deploy.lower import lower
from s2mlp_deploy.manifest import Manifest, Quantization, Source, SpecEntry, TensorEntry, ToleranceEntry
from s2mlp_deploy.oracle import Judgement
from s2mlp_deploy.parity import Array, Verdict
from s2mlp_deploy.prepare import Prepared, prepare
from s2mlp_deploy.progress import Listener, Progress
from s2mlp_deploy.reference import S2MLP
from s2mlp_deploy.request import SYNTHETIC, Request

__all__ = ["Export", "Listener", "Request", "deploy"]


@dataclass(frozen=True)
class Export:
    """A published bundle and what the gate measured (None where it was switched off)."""

    bundle: Bundle
    verdict: Verdict | None
    report: dict[str, Any]


def deploy(request: Request, listener: Listener | None = None) -> Export:
    """Export ``request.checkpoint`` as one verified bundle.

    Raises:
        ParityError: where the artifact's numbers are off; nothing is published then.
        Error: for everything else that errors.py lists.
    """
    progress = Progress(listener or Listener())
    artifact.check_destination(request.destination, replace=request.force)
    target = _exporter(request)
    prepared = prepare(request, progress)
    spec = prepared.source.spec
    lowering = lowerings.choose(request.lowering, spec, dynamic_size=request.dynamic_size)
    axes = Axes(request.batch, None if request.dynamic_size else spec.image_size)
    model = reference.build(spec, prepared.source.weights)
    inputs = judge.golden_inputs(spec, axes, prepared.data.images if prepared.data else None)
    truth = None
    if request.gate:
        with progress.step("computing golden logits in float64"):
            truth = oracle.consult(model, inputs)

    with artifact.staging(request.destination, replace=request.force) as staging:
        with progress.step("writing the graph"):
            lowered = lower(prepared, lowering, axes)
        if truth and request.precision != "fp32":
            # Rounding hides small faults; in float32 they show.
            with progress.step("checking the float32 graph"), scratch_session(lowered) as session:
                judge.judge(session, truth, "fp32", request.batch)
        lowered, quantized = _at_precision(lowered, prepared, request, model, inputs, target, progress)
        with progress.step(f"writing the {request.format} artifact"):
            made = target.export(lowered, staging.directory)
        expected = _expect(truth, prepared, model, request, quantized, progress) if truth else None
        # From here on the runtime holds the weights; the graph's and the checkpoint's would stand beside them.
        prepared = prepared.without_weights()
        del lowered, model, truth
        memory.release()
        judged: Judged | None = None
        figures: dict[str, Any] = {}
        if expected and request.calibration != SYNTHETIC:
            judged, figures = _judge(expected, prepared, made, target, request, progress)
            golden.save(judged.golden, staging.directory / artifact.GOLDEN)
        manifest = _manifest(request, prepared, lowering.name, axes, made, target, judged, quantized)
        report = {
            "evidence": [asdict(e) for e in prepared.evidence],
            **figures,
            "trials": [asdict(t) for t in quantized.trials] if quantized else [],
            "size_bytes": sum((staging.directory / name).stat().st_size for name in made.files),
            "seconds": progress.seconds,
            "machine": machine.describe(),
        }
        bundle = staging.publish(manifest, report)
    return Export(bundle, judged.verdict if judged else None, report)


def _exporter(request: Request) -> Exporter:
    target = exporter.find(request.format)
    if request.precision not in target.precisions or request.precision not in parity.RULES:
        raise UsageError(
            f"--format {request.format} cannot be made with --precision {request.precision}: expected "
            + " or ".join(p for p in target.precisions if p in parity.RULES)
        )
    if request.precision != "int8" and (request.target or request.calibration):
        raise UsageError("--target and --calibration are for --precision int8")
    if request.target is not None and request.target not in target.targets:
        raise UsageError(
            f"--format {request.format} does not take int8 graphs for --target {request.target}: expected "
            + " or ".join(target.targets)
        )
    if request.io_dtype == "fp16" and request.precision != "fp16":
        raise UsageError("--io-dtype fp16 is for --precision fp16")
    return target


def _at_precision(
    lowered: Lowered, prepared: Prepared, request: Request, model: S2MLP, inputs: Mapping[str, Array], target: Exporter,
    progress: Progress,
) -> tuple[Lowered, Quantized | None]:  # fmt: skip
    if request.precision == "fp16":
        with progress.step("checking ranges and rounding to float16"):
            return precision.half(lowered, inputs, io_dtype=request.io_dtype, warn=progress.warn), None
    if request.precision == "int8":
        quantized = to_int8(lowered, prepared, request, model, request.target or target.targets[0], progress)
        return quantized.lowered, quantized
    return lowered, None


@dataclass(frozen=True)
class _Expected:
    """What the artifact must compute: golden logits, and PyTorch's on the labelled images where they judge."""

    golden: Judgement
    image_logits: Array | None


def _expect(
    truth: Judgement,
    prepared: Prepared,
    model: S2MLP,
    request: Request,
    quantized: Quantized | None,
    progress: Progress,
) -> _Expected:
    with progress.step(f"computing what {request.precision} is compared with"):
        if quantized:
            # int8 is judged on images; how it does on the labelled ones was settled while it was made.
            images = quantized.judges.images if quantized.judges else None
            return _Expected(truth if images is None else oracle.consult(model, judge.golden_images(images)), None)
        if request.precision == "fp16":
            truth = oracle.compare_own(model, truth.golden, judge.OWN_DTYPE["fp16"])
        return _Expected(truth, oracle.run(model, prepared.data.images) if prepared.data else None)


def _judge(
    expected: _Expected, prepared: Prepared, made: Artifact, target: Exporter, request: Request, progress: Progress
) -> tuple[Judged, dict[str, Any]]:
    with progress.step(f"checking {request.precision} parity with the oracle"):
        session = target.open(made)
        judged = judge.judge(session, expected.golden, request.precision, request.batch)
        figures = dict(judged.figures)
        if prepared.data and expected.image_logits is not None:
            figures["images"] = judge.judge_images(
                session, prepared.data, expected.image_logits, judged.tolerance, request.batch
            )
    return judged, figures


def _manifest(
    request: Request, prepared: Prepared, lowering: str, axes: Axes, made: Artifact, target: Exporter,
    judged: Judged | None, quantized: Quantized | None,
) -> Manifest:  # fmt: skip
    source, spec = prepared.source, prepared.source.spec
    dtype = "float16" if request.io_dtype == "fp16" else "float32"
    files = sorted([*made.files, *([artifact.GOLDEN] if judged else [])])
    return Manifest(
        tool_version=__version__,
        format=request.format,
        precision=request.precision,
        lowering=lowering,
        spec=SpecEntry.of(spec),
        source=Source(sha256=source.sha256, layout=source.layout.name, weights=source.wrapper, dtypes=source.dtypes),
        preprocessing=prepared.preprocessing,
        labels=source.recorded.labels,
        input=TensorEntry(name=INPUT, dtype=dtype, shape=axes.shape(spec.in_channels)),
        output=TensorEntry(name=OUTPUT, dtype=dtype, shape=(request.batch or "batch", spec.classes)),
        opset=OPSET,
        quantization=Quantization(
            target=quantized.target,
            method=request.calibration_method,
            calibration_images=quantized.calibration_images,
            float_layers=quantized.float_layers,
        )
        if quantized
        else None,
        versions={**target.versions(), **machine.installed(("numpy", "torch"))},
        artifact=made.main,
        files={name: sha256(made.directory / name) for name in files},
        tolerance=ToleranceEntry.of(judged.tolerance) if judged else None,
        verdict="passed" if judged else "for benchmarks only" if request.calibration == SYNTHETIC else "not judged",
    )
