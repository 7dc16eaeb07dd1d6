"""Check a graph before the artifact is made of it, where the artifact's own check could hide a fault."""

from __future__ import annotations

from dataclasses import replace

from s2mlp_deploy.formats import float16_on_cpu
from s2mlp_deploy.formats.base import Exporter
from s2mlp_deploy.formats.onnx import scratch_session
from s2mlp_deploy.gate import gate
from s2mlp_deploy.gate.io_adapter import ArtifactIo
from s2mlp_deploy.gate.rules import tolerance_for
from s2mlp_deploy.graph.lowered import Lowered
from s2mlp_deploy.passes import attach_io
from s2mlp_deploy.pipeline.checkpoint_context import CheckpointContext
from s2mlp_deploy.pipeline.expected_logits import Expected
from s2mlp_deploy.pipeline.request import ExportRequest
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS
from s2mlp_deploy.schema.precision import FP32
from s2mlp_deploy.system.progress import Progress


def check_in_float32(lowered: Lowered, known: CheckpointContext, request: ExportRequest, progress: Progress) -> None:
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
            gate.require(session, reference.golden, tolerance, ArtifactIo(request.graph.batch))
        if rounds and interface != FLOAT_LOGITS:
            raw = reference.for_artifact(known.test_inputs.raw).golden
            attached = attach_io.attach(lowered, interface, known.prepared.preprocessing)
            with scratch_session(replace(lowered, model=attached)) as session:
                gate.require(session, raw, tolerance, ArtifactIo(request.graph.batch, interface))


def check_rounded_logits(
    lowered: Lowered, known: CheckpointContext, expected: Expected, request: ExportRequest, progress: Progress
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
        gate.require(session, wanted, tolerance_for(row.name, expected.reference), ArtifactIo(request.graph.batch))


def can_check_here(request: ExportRequest, target: Exporter) -> bool:
    """Whether the runtime at hand can check the artifact: not bfloat16, nor float16 where it sums in float16."""
    inexact = request.arithmetic_of(target).sums_in_float16 and float16_on_cpu.adds_up_in_float16()
    return request.precision.row.name in target.precisions and not inexact
