"""The first stage: a checkpoint becomes a graph, passes the gate, and is published.

checkpoint ─▶ which shift? ─▶ reference ─▶ golden tensors
           └▶ graph ─▶ folds ─▶ onnxsim ─▶ precision ─▶ artifact ─▶ gate ─▶ bundle
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from s2mlp_deploy import __version__
from s2mlp_deploy.bundle.contents import GOLDEN, Artifact
from s2mlp_deploy.bundle.staging import staged
from s2mlp_deploy.families.reference import ReferenceModel
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.formats import float16_on_cpu
from s2mlp_deploy.formats.base import Exporter
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.gate import gate as gates
from s2mlp_deploy.gate import golden, golden_images, manifest_consistency, reference_logits
from s2mlp_deploy.gate.checks import Verdict
from s2mlp_deploy.gate.evaluation import EvaluationSet, check_images
from s2mlp_deploy.gate.golden import GoldenReference
from s2mlp_deploy.gate.golden_images import Pictures
from s2mlp_deploy.gate.io_adapter import ArtifactIo, IoAdapter, TestInputs
from s2mlp_deploy.gate.rules import tolerance_for
from s2mlp_deploy.graph import io_signature
from s2mlp_deploy.graph import spatial_shift as lowerings
from s2mlp_deploy.graph.lowered import OPSET, Axes, Lowered
from s2mlp_deploy.pipeline.context import Prepared, prepare
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.pipeline.request import SYNTHETIC, Export, Request
from s2mlp_deploy.quantization.int8 import Quantized, to_int8
from s2mlp_deploy.quantization.rounding import Rounding, round_graph
from s2mlp_deploy.runtime.session import Description, description_of
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, GoldenImage, Manifest, Quantization, Source
from s2mlp_deploy.schema.precision import FP32, Arithmetic, Precision, precision
from s2mlp_deploy.schema.tolerance import Tolerance
from s2mlp_deploy.system import machine, memory
from s2mlp_deploy.system.hashing import sha256
from s2mlp_deploy.system.progress import Progress


@dataclass(frozen=True)
class CheckpointContext:
    """What is known of a checkpoint before anything is made of it; several artifacts can share it.

    ``reference`` is None where the gate is switched off.
    """

    prepared: Prepared
    model: ReferenceModel
    test_inputs: TestInputs
    reference: GoldenReference | None


def read_checkpoint(request: Request, progress: Progress) -> CheckpointContext:
    """Read the checkpoint, settle its shift, and compute the reference logits of its golden inputs.

    Raises:
        InputError, UsageError, EvidenceError: as :func:`~s2mlp_deploy.pipeline.context.prepare`.
    """
    prepared = prepare(request, progress)
    spec = prepared.source.spec
    lowerings.choose(
        request.lowering, spec.shifts, dynamic_size=request.dynamic_size
    )  # refused before any work is done
    model = family_of(spec).build(spec, prepared.source.weights)
    io_signature.refuse(request.interface, prepared.preprocessing, spec, dynamic_size=request.dynamic_size)
    inputs = golden.make_inputs(spec, _axes(request, prepared))
    if prepared.pictures:
        inputs["images"] = prepared.pictures.images
    test_inputs = _adapter(request, prepared).test_inputs(inputs, prepared.pictures)
    if not request.gate:
        return CheckpointContext(prepared, model, test_inputs, None)
    with progress.step("computing golden logits in float64"):
        return CheckpointContext(
            prepared, model, test_inputs, reference_logits.compute_reference(model, test_inputs.prepared)
        )


def export(
    request: Request, target: Exporter, progress: Progress, shared: CheckpointContext | None = None
) -> tuple[Export, EvaluationSet | None]:
    """Publish the checkpoint as ``target``'s artifact; with images to check what is compiled from it.

    Raises:
        ParityError: where the artifact's numbers are off; nothing is published then.
    """
    known = shared or read_checkpoint(request, progress)
    prepared, model, reference = known.prepared, known.model, known.reference
    adapter = _adapter(request, prepared)
    spec, axes = prepared.source.spec, _axes(request, prepared)
    lowering = lowerings.choose(request.lowering, spec.shifts, dynamic_size=request.dynamic_size)
    with staged(request.destination, replace=request.force) as staging:
        with progress.step("writing the graph"):
            lowered = lower(prepared, lowering, axes)
        if reference:
            _check_in_float32(lowered, known, reference, request, progress)
        lowered, quantized = _at_precision(lowered, known, request, target, progress)
        with progress.step(f"writing the {request.format} artifact"):
            graph = io_signature.attach(lowered, request.interface, prepared.preprocessing)
            made = target.export(replace(lowered, model=graph), staging.directory)
        expected = _expect(known, request, target, quantized, progress) if reference else None
        runs_right = _runs_right(request, target)
        row = precision(request.precision)
        if expected and runs_right and row.rounds and not row.calibrated and request.interface.output != "logits":
            with progress.step(f"checking the {row.name} graph's logits"), scratch_session(lowered) as session:
                prepared_inputs = expected.reference.for_artifact(known.test_inputs.prepared)
                gates.require(
                    session,
                    prepared_inputs.golden,
                    tolerance_for(row.name, expected.reference),
                    ArtifactIo(request.batch),
                )
        # From here on the runtime holds the weights; the graph's and the checkpoint's would stand beside them.
        prepared = prepared.without_weights()
        del known, lowered, graph, model, reference
        memory.release()
        result: GateResult | None = None
        figures: dict[str, Any] = {}
        if expected and request.calibration != SYNTHETIC:
            tolerance = tolerance_for(request.precision, expected.reference)
            if runs_right:
                result, figures = _check(expected, made, target, adapter, tolerance, row, progress)
            else:  # a step on the way to an engine, which its own runtime checks on its device
                result = GateResult(tolerance)
            figures["pytorch_distances"] = {case: vars(d) for case, d in expected.reference.pytorch_distances.items()}
            golden.save(expected.reference.golden, staging.directory / GOLDEN)
        shown = _show(expected, prepared, staging.directory) if result and expected else ()
        manifest = _manifest(request, prepared, lowering.name, axes, made, target, result, quantized, shown)
        if request.sbom:
            from s2mlp_deploy.bundle import sbom

            manifest = sbom.add(manifest, staging.directory, modules=target.modules, others=target.shipped(made))
        manifest_consistency.check(manifest, result.description if result else None, request.destination)
        report = {
            "data": asdict(prepared.data.folder) if prepared.data and prepared.data.folder else None,
            "evidence": [asdict(e) for e in prepared.evidence],
            "left_out": [asdict(tensor) for tensor in prepared.source.left_out],
            **figures,
            "trials": [asdict(t) for t in quantized.trials] if quantized else [],
            "size_bytes": sum((staging.directory / name).stat().st_size for name in made.files),
            "seconds": progress.seconds,
            "machine": machine.describe(),
        }
        bundle = staging.publish(manifest, report)
    return Export(bundle, result.verdict if result else None, report), expected.evaluation if expected else None


def _check_in_float32(
    lowered: Lowered, known: CheckpointContext, reference: GoldenReference, request: Request, progress: Progress
) -> None:
    """Rounding hides small faults, and so do probabilities; in float32 logits they show.

    A float32 graph that gives logits is the artifact itself, which the gate checks later.

    Raises:
        ParityError: where a check fails.
    """
    row = precision(request.precision)
    if not row.rounds and request.interface == FLOAT_LOGITS:
        return
    with progress.step("checking the float32 graph"):
        tolerance = tolerance_for(FP32.name, reference)
        with scratch_session(lowered) as session:
            gates.require(session, reference.golden, tolerance, ArtifactIo(request.batch))
        if row.rounds and request.interface != FLOAT_LOGITS:
            graph = io_signature.attach(lowered, request.interface, known.prepared.preprocessing)
            raw = reference.for_artifact(known.test_inputs.raw).golden
            with scratch_session(replace(lowered, model=graph)) as session:
                gates.require(session, raw, tolerance, ArtifactIo(request.batch, request.interface))


def _adapter(request: Request, prepared: Prepared) -> IoAdapter:
    io = ArtifactIo(request.batch, request.interface, request.dtype)
    return IoAdapter(prepared.preprocessing, prepared.source.spec.image_size, io)


def _axes(request: Request, prepared: Prepared) -> Axes:
    return Axes(request.batch, None if request.dynamic_size else prepared.source.spec.image_size)


def _at_precision(
    lowered: Lowered, known: CheckpointContext, request: Request, target: Exporter, progress: Progress
) -> tuple[Lowered, Quantized | None]:
    row, arithmetic = precision(request.precision), _arithmetic(request, target)
    if arithmetic.rounding:
        with progress.step(f"rounding to {arithmetic.weights}"):
            rounding = Rounding(row, arithmetic, request.dtype)
            return round_graph(lowered, rounding, known.test_inputs.prepared, progress.warn), None
    if row.calibrated:
        quantized = to_int8(lowered, known.prepared, request, known.model, request.target_of(target), progress)
        return quantized.lowered, quantized
    return lowered, None


def _runs_right(request: Request, target: Exporter) -> bool:
    """Whether the runtime at hand can check what is made for it: not bfloat16, nor float16 where it adds up in that."""
    inexact = _arithmetic(request, target).sums_in_float16 and float16_on_cpu.adds_up_in_float16()
    return request.precision in target.precisions and not inexact


def _arithmetic(request: Request, target: Exporter) -> Arithmetic:
    return precision(request.precision).arithmetic(request.target_of(target))


@dataclass(frozen=True)
class _Expected:
    """What the artifact must compute: golden logits, and PyTorch's on images where there are any to check it on.

    ``reference`` has the artifact's own inputs; ``pictures`` are those among them.
    """

    reference: GoldenReference
    evaluation: EvaluationSet | None
    pictures: Pictures | None


def _expect(
    known: CheckpointContext, request: Request, target: Exporter, quantized: Quantized | None, progress: Progress
) -> _Expected:
    prepared, model, reference, test_inputs = known.prepared, known.model, known.reference, known.test_inputs
    assert reference is not None
    with progress.step(f"computing what {request.precision} is compared with"):
        if quantized:
            evaluation = quantized.evaluation
            if evaluation is None:
                return _Expected(reference.for_artifact(test_inputs.raw), None, None)
            pictures = prepared.pictures if request.golden_images and prepared.pictures else evaluation.pictures()
            test_inputs = _adapter(request, prepared).test_inputs({"images": pictures.images}, pictures)
            reference = reference_logits.compute_reference(model, test_inputs.prepared).for_artifact(test_inputs.raw)
            as_logits = request.interface.model_copy(update={"output": "logits"})
            graph = io_signature.attach(quantized.lowered, as_logits, prepared.preprocessing)
            with scratch_session(replace(quantized.lowered, model=graph)) as session:
                quantized_golden = gates.record_quantized_reference(session, reference.golden, request.batch)
            reference = replace(reference, golden=quantized_golden)
            return _Expected(reference, evaluation, pictures)
        if precision(request.precision).rounds:
            reference = reference_logits.compare_rounded(model, reference.golden, _arithmetic(request, target))
        data = prepared.data
        evaluation = (
            EvaluationSet(data.images, reference_logits.run(model, data.images), data.labels, data.files)
            if data
            else None
        )
        return _Expected(reference.for_artifact(test_inputs.raw), evaluation, prepared.pictures)


def _show(expected: _Expected, prepared: Prepared, directory: Path) -> tuple[GoldenImage, ...]:
    """Let the golden images travel along, where there are any."""
    return golden_images.write(expected.pictures, prepared.preprocessing, directory) if expected.pictures else ()


@dataclass(frozen=True)
class GateResult:
    """The tolerance, what the gate measured (None where nothing here can run the artifact), and the artifact's own
    description of its inputs and outputs, where it has one."""

    tolerance: Tolerance
    verdict: Verdict | None = None
    description: Description | None = None


def _check(
    expected: _Expected,
    made: Artifact,
    target: Exporter,
    adapter: IoAdapter,
    tolerance: Tolerance,
    row: Precision,
    progress: Progress,
) -> tuple[GateResult, dict[str, Any]]:
    with progress.step(f"checking {row.name} parity with the reference"):
        session = target.open(made)
        verdict = gates.require(session, expected.reference.golden, tolerance, adapter.io)
        figures: dict[str, Any] = {"distances": {case: vars(d) for case, d in verdict.distances.items()}}
        # int8's accuracy was measured while it was made.
        if expected.evaluation and not row.calibrated:
            figures["images"] = vars(check_images(session, expected.evaluation, tolerance, adapter))
    return GateResult(tolerance, verdict, description_of(session)), figures


def _manifest(
    request: Request, prepared: Prepared, lowering: str, axes: Axes, made: Artifact, target: Exporter,
    result: GateResult | None, quantized: Quantized | None, shown: tuple[GoldenImage, ...],
) -> Manifest:  # fmt: skip
    source, spec = prepared.source, prepared.source.spec
    first, second = io_signature.output_entries(request.interface, spec, axes, request.dtype)
    files = sorted([*made.files, *([GOLDEN] if result else []), *(image.file for image in shown)])
    return Manifest(
        tool_version=__version__,
        format=request.format,
        precision=request.precision,
        arithmetic=precision(request.precision).recorded(request.target_of(target)),
        lowering=lowering,
        spec=spec,
        source=Source(sha256=source.sha256, layout=source.layout.name, weights=source.wrapper, dtypes=source.dtypes),
        preprocessing=prepared.preprocessing,
        labels=source.recorded.labels,
        interface=request.interface,
        input=io_signature.input_entry(request.interface, spec, axes, request.dtype),
        output=first,
        output_classes=second,
        opset=OPSET,
        quantization=Quantization(
            target=quantized.target,
            method=request.calibration_method,
            calibration_images=quantized.calibration_images,
            float_layers=quantized.float_layers,
        )
        if quantized
        else None,
        engine=dict(made.settings) or None,
        versions={**target.versions(), **machine.installed(_makers(shown=bool(shown), calibrated=bool(quantized)))},
        artifact=made.main,
        graph=made.graph,
        files={name: sha256(made.directory / name) for name in files},
        golden_images=shown,
        tolerance=result.tolerance if result else None,
        verdict=_verdict(request, result),
    )


def _makers(*, shown: bool, calibrated: bool) -> tuple[str, ...]:
    """The packages that decide a bundle's bytes whatever its format: ONNX Runtime finds the ranges of activations."""
    runtimes = ("onnxruntime", "onnxruntime-gpu") if calibrated else ()
    return ("numpy", "torch", *(["pillow"] if shown else []), *runtimes)


def _verdict(
    request: Request, result: GateResult | None
) -> Literal["passed", "pending a device", "not judged", "for benchmarks only"]:
    if result:
        return "passed" if result.verdict else "pending a device"
    return "for benchmarks only" if request.calibration == SYNTHETIC else "not judged"
