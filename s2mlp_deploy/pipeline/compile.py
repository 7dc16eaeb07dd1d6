"""The second stage: compile a verified ONNX bundle for a runtime, pass the gate again, and publish.

Needs the runtime, not torch: the golden tensors travel in the bundle.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from s2mlp_deploy.bundle import golden_tensors, network_golden
from s2mlp_deploy.bundle.contents import GOLDEN, Artifact, Bundle
from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.bundle.network_golden import NetworkGolden
from s2mlp_deploy.bundle.read import read_bundle, read_report
from s2mlp_deploy.bundle.staging import staged
from s2mlp_deploy.errors import BundleError, OutputError, UnverifiedError, UsageError
from s2mlp_deploy.formats import float16_on_cpu, memory_limit, onnx_scan, registry
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.gate.evaluation import EvaluationSet
from s2mlp_deploy.pipeline import int8_gain
from s2mlp_deploy.pipeline.publish import Candidate, publish
from s2mlp_deploy.pipeline.request import Export, ExportRequest, refuse_settled
from s2mlp_deploy.quantization.settings import Int8
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.precision import precision
from s2mlp_deploy.schema.report import EngineReport, ImageAccuracy, Report, SourceBundle
from s2mlp_deploy.system.progress import Progress
from s2mlp_deploy.system.wording import counted

ROOM = 3
"""Room for the engine, its graph and the compiler's additions, in sizes of the graph."""


def open_bundle(request: ExportRequest, target: Compiler) -> Bundle:
    """The ONNX bundle that ``request`` names, unchanged and of a kind that ``target`` compiles.

    Raises:
        BundleError: where it is damaged, or not an ONNX bundle.
        UsageError: where its graph is not one for this format.
    """
    directory, format = request.source.path, request.format.name
    bundle = read_bundle(directory, request.source.publisher)
    manifest = bundle.manifest
    if manifest.format != ONNX:
        raise BundleError(f"{directory} is a bundle of format {manifest.format!r}: expected an ONNX bundle to compile")
    if request.precision.row.name != manifest.precision:
        raise UsageError(
            f"{directory} holds a {manifest.precision} graph, and precision is a property of the graph: leave out "
            f"--precision, or export the checkpoint again with --precision {request.precision.row.name}"
        )
    refuse_settled(request.settled_by_a_bundle(), directory)
    if isinstance(manifest.spec, OnnxNetwork) and not target.networks:
        raise UsageError(
            f"--format {format} is for image classifiers, and {directory} holds a repaired network of "
            f"{counted(len(manifest.spec.inputs), 'input')} and {counted(len(manifest.spec.outputs), 'output')}: expected --format "
            + " or ".join(name for name in registry.names() if name != ONNX and registry.find(name).networks)
        )
    target.refuse_interface(manifest.interface)
    row, recipe = precision(manifest.precision), manifest.quantization
    known = target.targets_of(row)
    if recipe and recipe.target not in known:
        raise UsageError(
            f"{directory} is quantized for {recipe.target}, and --format {format} takes graphs for "
            f"{' or '.join(known)}: export the checkpoint with --precision int8 --target {known[0]}"
        )
    if row.read(manifest.arithmetic).widens_weights and row.arithmetic(request.target_of(target)).sums_in_float16:
        raise UsageError(
            f"{directory} has float16 weights and computes in float32, as CPUs do best, and --format {format} is to run on a "
            "GPU: export the checkpoint with --precision fp16 --target trt"
        )
    registry.inspect(bundle)
    if (written_for := onnx_scan.target_of(bundle)) and written_for not in known:
        raise UsageError(
            f"{directory} was exported with --target {written_for} and has operators that only ONNX Runtime knows, and --format {format} takes "
            f"graphs for {' or '.join(known)}: export the checkpoint with --precision {row.name} --target {known[-1]}"
        )
    return bundle


def compile_foreign(bundle: Bundle, target: Compiler, request: ExportRequest, progress: Progress) -> Export:
    """:func:`compile` for a bundle that was made earlier: within a memory limit, since its graph is not trusted.

    Raises:
        ParityError: as :func:`compile`.
    """
    accuracy = (read_report(bundle) or Report()).accuracy
    images = {} if accuracy is None else {"images": ImageAccuracy(accuracy=accuracy)}
    signed = {} if bundle.signature.state == "unsigned" else {"signature": bundle.signature.state}
    if signed and not request.output.sign:
        progress.warn(
            f"{bundle.directory} is signed, and its signature does not cover what is made from it: the new bundle is unsigned. "
            "Sign it with --sign"
        )
    facts = {"sha256": bundle.manifest.files[bundle.manifest.artifact], **images, **signed}
    built_from = SourceBundle.model_validate(facts)
    report = Report(built_from=built_from, evidence=(), pytorch_distances={}, trials=())
    with memory_limit.bounded(bundle, on_gpu=target.for_gpu(request.options_of(target))):
        return compile(bundle, target, request, progress, report)


def compile(
    bundle: Bundle,
    target: Compiler,
    request: ExportRequest,
    progress: Progress,
    report: Report,
    evaluation: EvaluationSet | None = None,
) -> Export:
    """Publish ``bundle``'s graph as ``target``'s engine.

    ``report`` holds the figures of the bundle; ``evaluation`` are images to check the engine on besides the bundle's golden
    tensors.

    Raises:
        ParityError: where the engine's numbers are off; nothing is published then.
    """
    source, name, row = bundle.manifest, request.format.name, request.precision.row
    if source.precision != row.name:
        raise BundleError(
            f"{bundle.directory} holds a {source.precision} graph, and the engine is to be {row.name}: nothing was published"
        )
    checked = bool(source.tolerance) and GOLDEN in source.files
    pending = cannot_check(target, request) if checked else None
    with staged(request.destination, replace=request.output.force) as staging:
        _check_room(bundle, staging.directory)
        with progress.step(f"compiling for {name}"):
            made = target.compile(bundle, staging.directory, request.options_of(target))
        candidate = Candidate(
            made,
            _draft(source, made, target, request),
            _copy_golden(bundle, made, name, progress) if checked else None,
            report.model_copy(update={"engine": EngineReport(**made.report)}) if made.report else report,
            pending=bool(pending),
            evaluation=evaluation,
            limits=request.precision if isinstance(request.precision, Int8) else None,
            cause=float16_on_cpu.why_inexact(source, target, on_gpu=target.for_gpu(request.options_of(target))),
            placement=target.placement(request.options_of(target)),
        )
        published = publish(candidate, target, staging, progress, request.output)
    int8_gain.warn_without_gain(bundle, published.bundle, target, request, progress)
    return published


def cannot_check(target: Compiler, request: ExportRequest) -> str | None:
    """Why the engine cannot be checked on this machine, where the request allows for that; None where it can be.

    Raises:
        UnverifiedError: where it cannot, and must be.
    """
    reason = target.cannot_run(request.options_of(target))
    if reason and not request.evidence.allow_unverified_engine:
        raise UnverifiedError(
            f"the {request.format.name} engine could be built here, but not checked ({reason}), so nothing is published. Export on "
            "the device, from this checkpoint's ONNX bundle; or pass --allow-unverified-engine, and the bundle will say that "
            "its parity is pending a device, where s2mlp-verify checks it"
        )
    return reason


def _check_room(bundle: Bundle, directory: Path) -> None:
    """Refuse, before a build of minutes, where the disk has no room for the result."""
    needed, free = ROOM * bundle.size_bytes, shutil.disk_usage(directory).free
    if free < needed:
        raise OutputError(
            f"{directory.parent} has {free / 1e6:.0f} MB free, and an engine for this model may take {needed / 1e6:.0f} MB: free "
            "space, or choose another place with -o"
        )


def _copy_golden(bundle: Bundle, made: Artifact, format: str, progress: Progress) -> Golden | NetworkGolden:
    """Put the bundle's golden files beside the engine, without the cases that it is not built for."""
    for name in (GOLDEN, *(image.file for image in bundle.manifest.golden_images)):
        shutil.copyfile(bundle.directory / name, made.directory / name)
    if isinstance(bundle.manifest.spec, OnnxNetwork):
        return network_golden.load(bundle.golden, bundle.manifest.spec)
    known = golden_tensors.load(bundle.golden)
    if not made.beyond:
        return known
    kept = known.without(made.beyond)
    golden_tensors.save(kept, made.directory / GOLDEN)
    progress.warn(
        f"the {format} engine is not checked on {', '.join(made.beyond)}: it is built for sizes that do not reach there"
    )
    return kept


def _draft(source: Manifest, made: Artifact, target: Compiler, request: ExportRequest) -> Manifest:
    """The manifest of the engine: that of its ONNX bundle, but for what compiling decides."""
    return source.model_copy(
        update={
            "format": request.format.name,
            "engine": dict(made.settings),
            "versions": {**source.versions, **target.versions()},
            "artifact": made.main,
            "graph": made.graph,
        }
    )
