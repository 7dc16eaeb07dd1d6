"""The logits that an artifact is checked with, at its precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

from s2mlp_deploy.formats.base import Exporter
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.gate import gate, reference_logits
from s2mlp_deploy.gate.evaluation import EvaluationSet
from s2mlp_deploy.gate.golden import GoldenReference
from s2mlp_deploy.gate.golden_images import Pictures
from s2mlp_deploy.passes import attach_io
from s2mlp_deploy.pipeline.checkpoint_context import CheckpointContext, adapter_of
from s2mlp_deploy.pipeline.request import ExportRequest
from s2mlp_deploy.quantization.int8 import Quantized
from s2mlp_deploy.system.progress import Progress


@dataclass(frozen=True)
class Expected:
    """The expected logits of an artifact: golden ones, and PyTorch's on evaluation images where there are any.

    ``reference`` has the artifact's own inputs; ``pictures`` are those among them.
    """

    reference: GoldenReference
    evaluation: EvaluationSet | None
    pictures: Pictures | None


def expect(
    known: CheckpointContext, request: ExportRequest, target: Exporter, quantized: Quantized | None, progress: Progress
) -> Expected:
    """The golden logits and images that the artifact is checked with, at its precision."""
    prepared, model, reference, raw = known.prepared, known.model, known.reference, known.test_inputs.raw
    assert reference is not None
    with progress.step(f"computing what {request.precision.row.name} is compared with"):
        if quantized and quantized.evaluation:
            return _expect_of_int8(known, request, quantized, quantized.evaluation)
        if quantized:  # calibrated on noise: nothing is checked
            return Expected(reference.for_artifact(raw), None, None)
        if request.precision.row.rounds:
            reference = reference_logits.compare_rounded(model, reference.golden, request.arithmetic_of(target))
        evaluation, data = None, prepared.data
        if data:
            logits = reference_logits.run(model, data.images)
            evaluation = EvaluationSet(data.images, logits, data.labels, data.files)
        return Expected(reference.for_artifact(raw), evaluation, prepared.pictures)


def _expect_of_int8(
    known: CheckpointContext, request: ExportRequest, quantized: Quantized, evaluation: EvaluationSet
) -> Expected:
    """Golden images alone, since int8 is calibrated for images, and the logits that the int8 graph itself gives for them."""
    prepared = known.prepared
    pictures = prepared.pictures if request.evidence.golden_images and prepared.pictures else evaluation.pictures()
    test_inputs = adapter_of(request, prepared).test_inputs({"images": pictures.images}, pictures)
    reference = reference_logits.compute_reference(known.model, test_inputs.prepared).for_artifact(test_inputs.raw)
    with_logits = request.graph.interface.model_copy(update={"output": "logits"})
    graph = attach_io.attach(quantized.lowered, with_logits, prepared.preprocessing)
    with scratch_session(replace(quantized.lowered, model=graph)) as session:
        wanted = gate.record_quantized_reference(session, reference.golden, request.graph.batch)
    return Expected(replace(reference, golden=wanted), evaluation, pictures)
