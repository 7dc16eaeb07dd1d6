"""The first stage: a checkpoint becomes a graph, is judged, and is published.

checkpoint ─▶ which shift? ─▶ oracle ─▶ golden tensors
           └▶ graph ─▶ folds ─▶ onnxsim ─▶ precision ─▶ artifact ─▶ gate ─▶ bundle
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from s2mlp_deploy import __version__
from s2mlp_deploy.bundle import bundle as bundles
from s2mlp_deploy.bundle.bundle import Artifact
from s2mlp_deploy.families.s2mlp import reference
from s2mlp_deploy.families.s2mlp.reference import S2MLP
from s2mlp_deploy.formats import float16_on_cpu
from s2mlp_deploy.formats.base import Exporter, shipped_by
from s2mlp_deploy.formats.registry import scratch_session
from s2mlp_deploy.gate import gate as gates
from s2mlp_deploy.gate import golden, golden_images, manifest_consistency, reference_logits
from s2mlp_deploy.gate.gate import Judged, Judgement, Judges
from s2mlp_deploy.gate.golden_images import Pictures
from s2mlp_deploy.gate.io_adapter import Asking, Questions
from s2mlp_deploy.graph import io_signature
from s2mlp_deploy.graph import spatial_shift as lowerings
from s2mlp_deploy.graph.lowered import OPSET, Axes, Lowered
from s2mlp_deploy.passes import float16, verify_rewrite
from s2mlp_deploy.passes.float16 import Arithmetic
from s2mlp_deploy.pipeline.context import Prepared, prepare
from s2mlp_deploy.pipeline.lower import lower
from s2mlp_deploy.pipeline.request import SYNTHETIC, Export, Request
from s2mlp_deploy.quantization import float16_range
from s2mlp_deploy.quantization.int8 import Quantized, to_int8
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import (
    FLOAT_LOGITS,
    GoldenImage,
    Manifest,
    Quantization,
    Source,
    SpecEntry,
)
from s2mlp_deploy.system import machine, memory
from s2mlp_deploy.system.hashing import sha256
from s2mlp_deploy.system.progress import Progress


@dataclass(frozen=True)
class Study:
    """What is known of a checkpoint before anything is made of it; several artifacts can share it.

    ``truth`` is None where the gate is switched off.
    """

    prepared: Prepared
    model: S2MLP
    questions: Questions
    truth: Judgement | None


def study(request: Request, progress: Progress) -> Study:
    """Read the checkpoint, settle its shift, and ask the oracle what it computes.

    Raises:
        InputError, UsageError, EvidenceError: as :func:`~s2mlp_deploy.pipeline.context.prepare`.
    """
    prepared = prepare(request, progress)
    spec = prepared.source.spec
    lowerings.choose(request.lowering, spec, dynamic_size=request.dynamic_size)  # refused before any work is done
    model = reference.build(spec, prepared.source.weights)
    io_signature.refuse(request.interface, prepared.preprocessing, spec, dynamic_size=request.dynamic_size)
    inputs = golden.make_inputs(spec, _axes(request, prepared))
    if prepared.pictures:
        inputs["images"] = prepared.pictures.images
    questions = _asking(request, prepared).questions(inputs, prepared.pictures)
    if not request.gate:
        return Study(prepared, model, questions, None)
    with progress.step("computing golden logits in float64"):
        return Study(prepared, model, questions, reference_logits.consult(model, questions.prepared))


def export(
    request: Request, target: Exporter, progress: Progress, shared: Study | None = None
) -> tuple[Export, Judges | None]:
    """Publish the checkpoint as ``target``'s artifact; with images that can judge what is compiled from it.

    Raises:
        ParityError: where the artifact's numbers are off; nothing is published then.
    """
    known = shared or study(request, progress)
    prepared, model, truth = known.prepared, known.model, known.truth
    asking = _asking(request, prepared)
    spec, axes = prepared.source.spec, _axes(request, prepared)
    lowering = lowerings.choose(request.lowering, spec, dynamic_size=request.dynamic_size)
    with bundles.staging(request.destination, replace=request.force) as staging:
        with progress.step("writing the graph"):
            lowered = lower(prepared, lowering, axes)
        if truth:
            _check_in_float32(lowered, known, truth, request, progress)
        lowered, quantized = _at_precision(lowered, known, request, target, progress)
        with progress.step(f"writing the {request.format} artifact"):
            graph = io_signature.attach(lowered, request.interface, prepared.preprocessing)
            made = target.export(replace(lowered, model=graph), staging.directory)
        expected = _expect(known, request, target, quantized, progress) if truth else None
        runs_right = _runs_right(request, target)
        if expected and runs_right and request.precision == "fp16" and request.interface.output != "logits":
            with progress.step("checking the float16 graph's logits"), scratch_session(lowered) as session:
                gates.judge(session, _asked(expected.judgement, known.questions.prepared), "fp16", request.batch)
        # From here on the runtime holds the weights; the graph's and the checkpoint's would stand beside them.
        prepared = prepared.without_weights()
        del known, lowered, graph, model, truth
        memory.release()
        judged: Judged | None = None
        figures: dict[str, Any] = {}
        if expected and request.calibration != SYNTHETIC:
            if runs_right:
                judged, figures = _judge(expected, made, target, request, asking, progress)
            else:  # a step on the way to an engine, which its own runtime judges on its device
                judged = gates.pending(expected.judgement, request.precision)
                figures = dict(judged.figures)
            golden.save(judged.golden, staging.directory / bundles.GOLDEN)
        shown = _show(expected, prepared, staging.directory) if judged and expected else ()
        manifest = _manifest(request, prepared, lowering.name, axes, made, target, judged, quantized, shown)
        if request.sbom:
            from s2mlp_deploy.bundle import sbom

            manifest = sbom.add(
                manifest, staging.directory, modules=target.modules, others=shipped_by(target, manifest.engine or {})
            )
        manifest_consistency.check(manifest, judged.description if judged else None, request.destination)
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
    return Export(bundle, judged.verdict if judged else None, report), expected.judges if expected else None


def _check_in_float32(lowered: Lowered, known: Study, truth: Judgement, request: Request, progress: Progress) -> None:
    """Rounding hides small faults, and so do probabilities; in float32 logits they show.

    What is float32 logits is judged as the artifact that it becomes, and not here.

    Raises:
        ParityError: where a check fails.
    """
    if request.precision == "fp32" and request.interface == FLOAT_LOGITS:
        return
    with progress.step("checking the float32 graph"):
        with scratch_session(lowered) as session:
            gates.judge(session, truth, "fp32", request.batch)
        if request.precision != "fp32" and request.interface != FLOAT_LOGITS:
            graph = io_signature.attach(lowered, request.interface, known.prepared.preprocessing)
            with scratch_session(replace(lowered, model=graph)) as session:
                gates.judge(session, _asked(truth, known.questions.raw), "fp32", request.batch, request.interface)


def _asking(request: Request, prepared: Prepared) -> Asking:
    return Asking(prepared.preprocessing, prepared.source.spec.image_size, request.interface)


def _axes(request: Request, prepared: Prepared) -> Axes:
    return Axes(request.batch, None if request.dynamic_size else prepared.source.spec.image_size)


def _at_precision(
    lowered: Lowered, known: Study, request: Request, target: Exporter, progress: Progress
) -> tuple[Lowered, Quantized | None]:
    if arithmetic := _arithmetic(request, target):
        with progress.step("checking ranges and rounding to float16"):
            rounded = float16_range.half(
                lowered,
                known.questions.prepared,
                arithmetic=arithmetic,
                io_dtype=request.io_dtype,
                warn=progress.warn,
            )
            verify_rewrite.check_rounded(rounded.model, lowered.model)
            return rounded, None
    if request.precision == "bf16":
        rounded = replace(lowered, model=float16.to_bfloat16(lowered.model), precision="bf16")
        verify_rewrite.check_rounded(rounded.model, lowered.model)
        return rounded, None
    if request.precision == "int8":
        quantized = to_int8(lowered, known.prepared, request, known.model, request.target_of(target), progress)
        return quantized.lowered, quantized
    return lowered, None


def _runs_right(request: Request, target: Exporter) -> bool:
    """Whether the runtime at hand can judge what is made for it: not bfloat16, nor float16 where it adds up in that."""
    inexact = _arithmetic(request, target) == "float16" and float16_on_cpu.adds_up_in_float16()
    return request.precision in target.precisions and not inexact


def _arithmetic(request: Request, target: Exporter) -> Arithmetic | None:
    """What a float16 graph for ``target`` computes in; None at other precisions."""
    return float16.ARITHMETIC[request.target_of(target)] if request.precision == "fp16" else None


@dataclass(frozen=True)
class _Expected:
    """What the artifact must compute: golden logits, and PyTorch's on images where there are any to judge it.

    ``judgement`` has the artifact's own inputs; ``pictures`` are those among them.
    """

    judgement: Judgement
    judges: Judges | None
    pictures: Pictures | None


def _expect(
    known: Study, request: Request, target: Exporter, quantized: Quantized | None, progress: Progress
) -> _Expected:
    prepared, model, truth, questions = known.prepared, known.model, known.truth, known.questions
    assert truth is not None
    with progress.step(f"computing what {request.precision} is compared with"):
        if quantized:
            judges = quantized.judges
            if judges is None:
                return _Expected(_asked(truth, questions.raw), None, None)
            pictures = prepared.pictures if request.golden_images and prepared.pictures else judges.pictures()
            questions = _asking(request, prepared).questions({"images": pictures.images}, pictures)
            judgement = _asked(reference_logits.consult(model, questions.prepared), questions.raw)
            asked_for_logits = request.interface.model_copy(update={"output": "logits"})
            graph = io_signature.attach(quantized.lowered, asked_for_logits, prepared.preprocessing)
            with scratch_session(replace(quantized.lowered, model=graph)) as session:
                judgement = gates.hear_quantized(session, judgement, request.batch)
            return _Expected(judgement, judges, pictures)
        if _arithmetic(request, target) == "float32":
            truth = reference_logits.compare_own(
                reference_logits.with_matrices_in_float16(model), truth.golden, torch.float32
            )
        elif request.precision in ("fp16", "bf16"):
            own = torch.float16 if request.precision == "fp16" else torch.bfloat16
            truth = reference_logits.compare_own(model, truth.golden, own)
        data = prepared.data
        judges = (
            Judges(data.images, reference_logits.run(model, data.images), data.labels, data.files) if data else None
        )
        return _Expected(_asked(truth, questions.raw), judges, prepared.pictures)


def _asked(judgement: Judgement, inputs: Mapping[str, Array]) -> Judgement:
    """``judgement`` with ``inputs`` (by case) as an artifact takes them."""
    return replace(judgement, golden=replace(judgement.golden, inputs=inputs))


def _show(expected: _Expected, prepared: Prepared, directory: Path) -> tuple[GoldenImage, ...]:
    """Let the golden images travel along, where there are any."""
    return golden_images.write(expected.pictures, prepared.preprocessing, directory) if expected.pictures else ()


def _judge(
    expected: _Expected, made: Artifact, target: Exporter, request: Request, asking: Asking, progress: Progress
) -> tuple[Judged, dict[str, Any]]:
    with progress.step(f"checking {request.precision} parity with the oracle"):
        session = target.open(made)
        judged = gates.judge(
            session, expected.judgement, request.precision, request.batch, request.interface, request.dtype
        )
        figures = dict(judged.figures)
        # How int8 does on them was settled while it was made.
        if expected.judges and request.precision != "int8":
            figures["images"] = gates.judge_images(session, expected.judges, judged.tolerance, request.batch, asking)
    return judged, figures


def _manifest(
    request: Request, prepared: Prepared, lowering: str, axes: Axes, made: Artifact, target: Exporter,
    judged: Judged | None, quantized: Quantized | None, shown: tuple[GoldenImage, ...],
) -> Manifest:  # fmt: skip
    source, spec = prepared.source, prepared.source.spec
    first, second = io_signature.output_entries(request.interface, spec, axes, request.dtype)
    files = sorted([*made.files, *([bundles.GOLDEN] if judged else []), *(image.file for image in shown)])
    return Manifest(
        tool_version=__version__,
        format=request.format,
        precision=request.precision,
        arithmetic=_arithmetic(request, target),
        lowering=lowering,
        spec=SpecEntry.of(spec),
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
        tolerance=judged.tolerance if judged else None,
        verdict=_verdict(request, judged),
    )


def _makers(*, shown: bool, calibrated: bool) -> tuple[str, ...]:
    """The packages that decide a bundle's bytes whatever its format: ONNX Runtime finds the ranges of activations."""
    runtimes = ("onnxruntime", "onnxruntime-gpu") if calibrated else ()
    return ("numpy", "torch", *(["pillow"] if shown else []), *runtimes)


def _verdict(
    request: Request, judged: Judged | None
) -> Literal["passed", "pending a device", "not judged", "for benchmarks only"]:
    if judged:
        return "passed" if judged.verdict else "pending a device"
    return "for benchmarks only" if request.calibration == SYNTHETIC else "not judged"
