"""The first stage: make a checkpoint's graph, pass the gate, and publish.

checkpoint ─▶ which shift? ─▶ reference ─▶ golden tensors
           └▶ graph ─▶ folds ─▶ onnxsim ─▶ precision ─▶ artifact ─▶ gate ─▶ bundle
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.contents import GOLDEN
from s2mlp_deploy.bundle.staging import staged
from s2mlp_deploy.formats.base import Exporter
from s2mlp_deploy.gate import golden_images
from s2mlp_deploy.gate.evaluation import EvaluationSet
from s2mlp_deploy.gate.rules import caution, tolerance_for
from s2mlp_deploy.graph import spatial_shift as lowerings
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.passes import attach_io
from s2mlp_deploy.pipeline import bundle_record, graph_checks
from s2mlp_deploy.pipeline.checkpoint_context import (
    CheckpointContext,
    adapter_of,
    axes_of,
    read_checkpoint,
)
from s2mlp_deploy.pipeline.context import Prepared
from s2mlp_deploy.pipeline.expected_logits import Expected, expect
from s2mlp_deploy.pipeline.lower import lower_checkpoint
from s2mlp_deploy.pipeline.publish import Candidate, publish
from s2mlp_deploy.pipeline.request import Export, ExportRequest
from s2mlp_deploy.quantization.int8 import Quantized, to_int8
from s2mlp_deploy.quantization.rounding import Rounding, round_graph, write_for_target
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.quantization.task import QuantizationTask
from s2mlp_deploy.schema.manifest import GoldenImage
from s2mlp_deploy.schema.tolerance import Tolerance
from s2mlp_deploy.system import memory
from s2mlp_deploy.system.progress import Progress


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
            graph = attach_io.attach(lowered, request.graph.interface, known.prepared.preprocessing)
            made = target.export(replace(lowered, model=graph), staging.directory)
        expected = expect(known, request, target, quantized, progress) if known.reference else None
        checkable = graph_checks.can_check_here(request, target)
        if expected and checkable:
            graph_checks.check_rounded_logits(lowered, known, expected, request, progress)
        facts = bundle_record.facts_of(known, lowered, quantized)
        # From here on the runtime holds the weights; the graph's and the checkpoint's would stand beside them.
        del known, shared, lowered, quantized, graph
        memory.release()
        checked = None if request.synthetic else expected
        if checked:
            golden_tensors.save(checked.reference.golden, staging.directory / GOLDEN)
        shown = _write_pictures(checked, facts.prepared, staging.directory)
        tolerance = _tolerance(request, checked, progress) if checked else None
        candidate = Candidate(
            made,
            bundle_record.manifest(request, target, facts, made, tolerance, shown),
            checked.reference.golden if checked else None,
            bundle_record.report(facts, checked),
            pending=not checkable,
            # int8's accuracy was measured while it was made.
            evaluation=checked.evaluation if checked and not facts.quantization else None,
        )
        published = publish(candidate, target, staging, progress, request.output)
    return published, expected.evaluation if expected else None


def _make_graph(
    request: ExportRequest, target: Exporter, known: CheckpointContext, progress: Progress
) -> tuple[Lowered, Quantized | None]:
    """The checkpoint as a graph at the request's precision; checked in float32 before it is rounded."""
    prepared, options, row = known.prepared, request.graph, request.precision.row
    with progress.step("writing the graph"):
        lowering = lowerings.choose(options.lowering, prepared.source.spec.shifts, dynamic_size=options.dynamic_size)
        lowered = lower_checkpoint(prepared, lowering, axes_of(request, prepared))
    target_name = request.target_of(target)
    if known.reference:  # with the target's operators: a fault in writing them would hide in rounding, too
        graph_checks.check_in_float32(write_for_target(lowered, target_name), known, request, progress)
    arithmetic = request.arithmetic_of(target)
    if arithmetic.rounding:
        with progress.step(f"rounding to {arithmetic.weights}"):
            rounding = Rounding(row, arithmetic, request.dtype)
            rounded = round_graph(lowered, rounding, known.test_inputs.prepared, progress.warn)
            return write_for_target(rounded, target_name), None
    if isinstance(request.precision, Int8):
        adapter = adapter_of(request, prepared)
        task = QuantizationTask(request.precision, target_name, known.model, adapter, prepared.data)
        quantized = to_int8(lowered, task, progress)
        return quantized.lowered, quantized
    return lowered, None


def _tolerance(request: ExportRequest, checked: Expected, progress: Progress) -> Tolerance:
    """The artifact's tolerance; with a warning where it shows few faults."""
    precision = request.precision.row.name
    tolerance = tolerance_for(precision, checked.reference)
    if text := caution(precision, checked.reference, tolerance):
        progress.warn(text)
    return tolerance


def _write_pictures(expected: Expected | None, prepared: Prepared, directory: Path) -> tuple[GoldenImage, ...]:
    """Write the golden images, where there are any, into the bundle."""
    if expected is None or expected.pictures is None:
        return ()
    return golden_images.write(expected.pictures, prepared.preprocessing, directory)
