"""A checkpoint that is read, with the reference logits of its golden inputs, and facts that follow from it and a request."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.families.reference import ReferenceModel
from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.gate import golden, reference_logits
from s2mlp_deploy.gate.golden import GoldenReference
from s2mlp_deploy.gate.io_adapter import ArtifactIo, IoAdapter, TestInputs
from s2mlp_deploy.graph import io_signature
from s2mlp_deploy.graph import spatial_shift as lowerings
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.pipeline.context import Prepared, prepare
from s2mlp_deploy.pipeline.request import ExportRequest
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.system.progress import Progress


@dataclass(frozen=True)
class CheckpointContext:
    """A checkpoint with the reference logits of its golden inputs; several artifacts can share it.

    ``reference`` is None where the gate is switched off.
    """

    prepared: Prepared
    model: ReferenceModel
    test_inputs: TestInputs
    reference: GoldenReference | None


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
    inputs = golden.make_inputs(spec, axes_of(request, prepared))
    if prepared.pictures:
        inputs["images"] = prepared.pictures.images
    test_inputs = adapter_of(request, prepared).test_inputs(inputs, prepared.pictures)
    if not request.evidence.gate:
        return CheckpointContext(prepared, model, test_inputs, None)
    with progress.step("computing golden logits in float64"):
        reference = reference_logits.compute_reference(model, test_inputs.prepared)
    return CheckpointContext(prepared, model, test_inputs, reference)


def adapter_of(request: ExportRequest, prepared: Prepared) -> IoAdapter:
    io = ArtifactIo(request.graph.batch, request.graph.interface, request.dtype)
    return IoAdapter(prepared.preprocessing, prepared.source.spec.image_size, io)


def axes_of(request: ExportRequest, prepared: Prepared) -> Axes:
    return Axes(request.graph.batch, None if request.graph.dynamic_size else prepared.source.spec.image_size)
