"""The first stage: make a checkpoint's graph, pass the gate, and publish.

checkpoint ─▶ which shift? ─▶ reference ─▶ golden tensors
           └▶ graph ─▶ folds ─▶ onnxsim ─▶ precision ─▶ artifact ─▶ gate ─▶ bundle
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.contents import GOLDEN, Artifact
from s2mlp_deploy.bundle.staging import staged
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.families.reference import ReferenceModel
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.formats import float16_on_cpu
from s2mlp_deploy.formats.base import Exporter
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.gate import gate as gates
from s2mlp_deploy.gate import golden, golden_images, reference_logits
from s2mlp_deploy.gate.evaluation import EvaluationSet
from s2mlp_deploy.gate.golden import GoldenReference
from s2mlp_deploy.gate.golden_images import Pictures
from s2mlp_deploy.gate.io_adapter import ArtifactIo, IoAdapter, TestInputs
from s2mlp_deploy.gate.rules import tolerance_for
from s2mlp_deploy.graph import io_signature
from s2mlp_deploy.graph import spatial_shift as lowerings
from s2mlp_deploy.graph.lowered import OPSET, Axes, Lowered
from s2mlp_deploy.pipeline.context import Prepared, prepare
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.pipeline.publish import Candidate, publish
from s2mlp_deploy.pipeline.request import Export, ExportRequest
from s2mlp_deploy.quantization.int8 import Quantized, to_int8
from s2mlp_deploy.quantization.rounding import Rounding, round_graph
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.quantization.task import QuantizationTask
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, GoldenImage, Manifest, Quantization, Source
from s2mlp_deploy.schema.precision import FP32, Arithmetic
from s2mlp_deploy.schema.report import Report, Trial
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.schema.tolerance import Tolerance
from s2mlp_deploy.system import machine, memory
from s2mlp_deploy.system.progress import Progress
from s2mlp_deploy.system.version import __version__


@dataclass(frozen=True)
class CheckpointContext:
    """A checkpoint with the reference logits of its golden inputs; several artifacts can share it.

    ``reference`` is None where the gate is switched off.
    """

    prepared: Prepared
    model: ReferenceModel
    test_inputs: TestInputs
    reference: GoldenReference | None


@dataclass(frozen=True)
class _Facts:
    """Everything that the manifest and the report record of a graph, without its weights."""

    prepared: Prepared
    axes: Axes
    lowering: str
    quantization: Quantization | None
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class _Expected:
    """The expected logits of an artifact: golden ones, and PyTorch's on evaluation images where there are any.

    ``reference`` has the artifact's own inputs; ``pictures`` are those among them.
    """

    reference: GoldenReference
    evaluation: EvaluationSet | None
    pictures: Pictures | None


def read_checkpoint(request: ExportRequest, progress: Progress) -> CheckpointContext:
    """Read the checkpoint, settle its shift, and compute the reference logits of its golden inputs.

    Raises:
        InputError, UsageError, EvidenceError: as :func:`~s2mlp_deploy.pipeline.context.prepare`.
    """
    prepared, options = prepare(request.source, request.evidence, progress), request.graph
    spec = prepared.source.spec
    if options.dynamic_size and spec.has_one_size:
        raise UsageError(
            f"--dynamic-size: the weights of {family_of(spec).title} are for images of one size, {format_size(spec.image_size)}: "
            "leave it out"
        )
    lowerings.choose(
        options.lowering, spec.shifts, dynamic_size=options.dynamic_size
    )  # refused before any work is done
    model = family_of(spec).build(spec, prepared.source.weights)
    io_signature.refuse(options.interface, prepared.preprocessing, spec, dynamic_size=options.dynamic_size)
    inputs = golden.make_inputs(spec, _axes(request, prepared))
    if prepared.pictures:
        inputs["images"] = prepared.pictures.images
    test_inputs = _adapter(request, prepared).test_inputs(inputs, prepared.pictures)
    if not request.evidence.gate:
        return CheckpointContext(prepared, model, test_inputs, None)
    with progress.step("computing golden logits in float64"):
        reference = reference_logits.compute_reference(model, test_inputs.prepared)
    return CheckpointContext(prepared, model, test_inputs, reference)


def export(
    request: ExportRequest, target: Exporter, progress: Progress, shared: CheckpointContext | None = None
) -> tuple[Export, EvaluationSet | None]:
    """Publish the checkpoint as ``target``'s artifact; with images to check an engine on that is compiled from it.

    Raises:
        ParityError: where the artifact's numbers are off; nothing is published then.
    """
    known = shared or read_checkpoint(request, progress)
    with staged(request.destination, replace=request.output.force) as staging:
        lowered, quantized = _make_graph(request, target, known, progress)
        with progress.step(f"writing the {request.format.name} artifact"):
            made = target.export(_attached(lowered, request, known), staging.directory)
        expected = _expect(known, request, target, quantized, progress) if known.reference else None
        runs_right = _runs_right(request, target)
        if expected and runs_right:
            _check_rounded_logits(lowered, known, expected, request, progress)
        facts = _facts(known, lowered, quantized)
        # From here on the runtime holds the weights; the graph's and the checkpoint's would stand beside them.
        del known, shared, lowered, quantized
        memory.release()
        checked = None if request.synthetic else expected
        if checked:
            golden_tensors.save(checked.reference.golden, staging.directory / GOLDEN)
        shown = _write_pictures(checked, facts.prepared, staging.directory)
        tolerance = tolerance_for(request.precision.row.name, checked.reference) if checked else None
        candidate = Candidate(
            made,
            _manifest(request, target, facts, made, tolerance, shown),
            checked.reference.golden if checked else None,
            _report(facts, checked),
            pending=not runs_right,
            # int8's accuracy was measured while it was made.
            evaluation=checked.evaluation if checked and not facts.quantization else None,
        )
        published = publish(candidate, target, staging, progress, sbom=request.output.sbom)
    return published, expected.evaluation if expected else None


def _make_graph(
    request: ExportRequest, target: Exporter, known: CheckpointContext, progress: Progress
) -> tuple[Lowered, Quantized | None]:
    """The checkpoint as a graph at the request's precision; checked in float32 before it is rounded."""
    prepared, options, row = known.prepared, request.graph, request.precision.row
    with progress.step("writing the graph"):
        lowering = lowerings.choose(options.lowering, prepared.source.spec.shifts, dynamic_size=options.dynamic_size)
        lowered = lower(prepared, lowering, _axes(request, prepared))
    if known.reference:
        _check_in_float32(lowered, known, request, progress)
    arithmetic = _arithmetic(request, target)
    if arithmetic.rounding:
        with progress.step(f"rounding to {arithmetic.weights}"):
            rounding = Rounding(row, arithmetic, request.dtype)
            return round_graph(lowered, rounding, known.test_inputs.prepared, progress.warn), None
    if isinstance(request.precision, Int8):
        target_name, adapter = request.target_of(target), _adapter(request, prepared)
        task = QuantizationTask(request.precision, target_name, known.model, adapter, prepared.data)
        quantized = to_int8(lowered, task, progress)
        return quantized.lowered, quantized
    return lowered, None


def _attached(lowered: Lowered, request: ExportRequest, known: CheckpointContext) -> Lowered:
    """``lowered`` with the nodes that the artifact's interface needs before and after the model."""
    graph = io_signature.attach(lowered, request.graph.interface, known.prepared.preprocessing)
    return replace(lowered, model=graph)


def _check_in_float32(lowered: Lowered, known: CheckpointContext, request: ExportRequest, progress: Progress) -> None:
    """Check the graph's float32 logits, since rounding and probabilities hide small faults.

    A float32 graph that gives logits is the artifact itself, which the gate checks later.

    Raises:
        ParityError: where a check fails.
    """
    rounds, interface, reference = request.precision.row.rounds, request.graph.interface, known.reference
    assert reference
    if not rounds and interface == FLOAT_LOGITS:
        return
    with progress.step("checking the float32 graph"):
        tolerance = tolerance_for(FP32.name, reference)
        with scratch_session(lowered) as session:
            gates.require(session, reference.golden, tolerance, ArtifactIo(request.graph.batch))
        if rounds and interface != FLOAT_LOGITS:
            raw = reference.for_artifact(known.test_inputs.raw).golden
            with scratch_session(_attached(lowered, request, known)) as session:
                gates.require(session, raw, tolerance, ArtifactIo(request.graph.batch, interface))


def _check_rounded_logits(
    lowered: Lowered, known: CheckpointContext, expected: _Expected, request: ExportRequest, progress: Progress
) -> None:
    """Check the logits of a rounded graph whose artifact gives probabilities, which hide faults.

    Raises:
        ParityError: where a check fails.
    """
    row = request.precision.row
    if not row.rounds or row.calibrated or request.graph.interface.output == "logits":
        return
    with progress.step(f"checking the {row.name} graph's logits"), scratch_session(lowered) as session:
        wanted = expected.reference.for_artifact(known.test_inputs.prepared).golden
        gates.require(session, wanted, tolerance_for(row.name, expected.reference), ArtifactIo(request.graph.batch))


def _adapter(request: ExportRequest, prepared: Prepared) -> IoAdapter:
    io = ArtifactIo(request.graph.batch, request.graph.interface, request.dtype)
    return IoAdapter(prepared.preprocessing, prepared.source.spec.image_size, io)


def _axes(request: ExportRequest, prepared: Prepared) -> Axes:
    return Axes(request.graph.batch, None if request.graph.dynamic_size else prepared.source.spec.image_size)


def _runs_right(request: ExportRequest, target: Exporter) -> bool:
    """Whether the runtime at hand can check the artifact: not bfloat16, nor float16 where it sums in float16."""
    inexact = _arithmetic(request, target).sums_in_float16 and float16_on_cpu.adds_up_in_float16()
    return request.precision.row.name in target.precisions and not inexact


def _arithmetic(request: ExportRequest, target: Exporter) -> Arithmetic:
    return request.precision.row.arithmetic(request.target_of(target))


def _expect(
    known: CheckpointContext, request: ExportRequest, target: Exporter, quantized: Quantized | None, progress: Progress
) -> _Expected:
    """The golden logits and images that the artifact is checked with, at its precision."""
    prepared, model, reference, raw = known.prepared, known.model, known.reference, known.test_inputs.raw
    assert reference is not None
    with progress.step(f"computing what {request.precision.row.name} is compared with"):
        if quantized and quantized.evaluation:
            return _expect_of_int8(known, request, quantized, quantized.evaluation)
        if quantized:  # calibrated on noise: nothing is checked
            return _Expected(reference.for_artifact(raw), None, None)
        if request.precision.row.rounds:
            reference = reference_logits.compare_rounded(model, reference.golden, _arithmetic(request, target))
        evaluation, data = None, prepared.data
        if data:
            logits = reference_logits.run(model, data.images)
            evaluation = EvaluationSet(data.images, logits, data.labels, data.files)
        return _Expected(reference.for_artifact(raw), evaluation, prepared.pictures)


def _expect_of_int8(
    known: CheckpointContext, request: ExportRequest, quantized: Quantized, evaluation: EvaluationSet
) -> _Expected:
    """Golden images alone, since int8 is calibrated for images, and the logits that the int8 graph itself gives for them."""
    prepared = known.prepared
    pictures = prepared.pictures if request.evidence.golden_images and prepared.pictures else evaluation.pictures()
    test_inputs = _adapter(request, prepared).test_inputs({"images": pictures.images}, pictures)
    reference = reference_logits.compute_reference(known.model, test_inputs.prepared).for_artifact(test_inputs.raw)
    with_logits = request.graph.interface.model_copy(update={"output": "logits"})
    graph = io_signature.attach(quantized.lowered, with_logits, prepared.preprocessing)
    with scratch_session(replace(quantized.lowered, model=graph)) as session:
        wanted = gates.record_quantized_reference(session, reference.golden, request.graph.batch)
    return _Expected(replace(reference, golden=wanted), evaluation, pictures)


def _write_pictures(expected: _Expected | None, prepared: Prepared, directory: Path) -> tuple[GoldenImage, ...]:
    """Write the golden images, where there are any, into the bundle."""
    if expected is None or expected.pictures is None:
        return ()
    return golden_images.write(expected.pictures, prepared.preprocessing, directory)


def _facts(known: CheckpointContext, lowered: Lowered, quantized: Quantized | None) -> _Facts:
    prepared = known.prepared.without_weights()
    record, trials = (quantized.record, quantized.trials) if quantized else (None, ())
    return _Facts(prepared, lowered.axes, lowered.lowering, record, trials)


def _report(facts: _Facts, checked: _Expected | None) -> Report:
    prepared = facts.prepared
    report = Report(
        data=prepared.data.folder if prepared.data else None,
        evidence=prepared.evidence,
        left_out=prepared.source.left_out,
        trials=facts.trials,
    )
    if not checked:
        return report
    return report.model_copy(update={"pytorch_distances": dict(checked.reference.pytorch_distances)})


def _manifest(
    request: ExportRequest,
    target: Exporter,
    facts: _Facts,
    made: Artifact,
    tolerance: Tolerance | None,
    shown: tuple[GoldenImage, ...],
) -> Manifest:
    """The manifest but for hashes and the gate's verdict."""
    source, interface, row = facts.prepared.source, request.graph.interface, request.precision.row
    first, second = io_signature.output_entries(interface, source.spec, facts.axes, request.dtype)
    makers = _makers(shown=bool(shown), calibrated=facts.quantization is not None)
    return Manifest(
        tool_version=__version__,
        format=request.format.name,
        precision=row.name,
        arithmetic=row.recorded(request.target_of(target)),
        lowering=facts.lowering,
        spec=source.spec,
        source=Source(sha256=source.sha256, layout=source.layout.name, weights=source.wrapper, dtypes=source.dtypes),
        preprocessing=facts.prepared.preprocessing,
        labels=source.recorded.labels,
        interface=interface,
        input=io_signature.input_entry(interface, source.spec, facts.axes, request.dtype),
        output=first,
        output_classes=second,
        opset=OPSET,
        quantization=facts.quantization,
        engine=dict(made.settings) or None,
        versions={**target.versions(), **machine.installed(makers)},
        artifact=made.main,
        graph=made.graph,
        files={},
        golden_images=shown,
        tolerance=tolerance,
        verdict="for benchmarks only" if request.synthetic else "not judged",
    )


def _makers(*, shown: bool, calibrated: bool) -> tuple[str, ...]:
    """The packages that decide a bundle's bytes whatever its format: ONNX Runtime finds the ranges of activations."""
    runtimes = ("onnxruntime", "onnxruntime-gpu") if calibrated else ()
    return ("numpy", "torch", *(["pillow"] if shown else []), *runtimes)
