"""The manifest and the report of a bundle that is made of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.bundle.contents import Artifact
from s2mlp_deploy.formats.base import Exporter
from s2mlp_deploy.graph import io_signature
from s2mlp_deploy.graph.lowered import OPSET, Axes, Lowered
from s2mlp_deploy.pipeline.checkpoint_context import CheckpointContext
from s2mlp_deploy.pipeline.context import Prepared
from s2mlp_deploy.pipeline.expected_logits import Expected
from s2mlp_deploy.pipeline.request import ExportRequest
from s2mlp_deploy.quantization.int8 import Quantized
from s2mlp_deploy.schema.manifest import GoldenImage, Manifest, Quantization, Source
from s2mlp_deploy.schema.report import Report, Trial
from s2mlp_deploy.schema.tolerance import Tolerance
from s2mlp_deploy.system import machine
from s2mlp_deploy.system.version import __version__


@dataclass(frozen=True)
class Facts:
    """Everything that the manifest and the report record of a graph, without its weights."""

    prepared: Prepared
    axes: Axes
    lowering: str
    quantization: Quantization | None
    trials: tuple[Trial, ...]


def facts_of(known: CheckpointContext, lowered: Lowered, quantized: Quantized | None) -> Facts:
    prepared = known.prepared.without_weights()
    record, trials = (quantized.record, quantized.trials) if quantized else (None, ())
    return Facts(prepared, lowered.axes, lowered.lowering, record, trials)


def report(facts: Facts, checked: Expected | None) -> Report:
    prepared = facts.prepared
    found = Report(
        data=prepared.data.folder if prepared.data else None,
        evidence=prepared.evidence,
        left_out=prepared.source.left_out,
        trials=facts.trials,
    )
    if not checked:
        return found
    return found.model_copy(update={"pytorch_distances": dict(checked.reference.pytorch_distances)})


def manifest(
    request: ExportRequest,
    target: Exporter,
    facts: Facts,
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
        arithmetic=request.recorded_arithmetic(target),
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
