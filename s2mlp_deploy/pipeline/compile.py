"""The second stage: a verified ONNX bundle is compiled for a runtime, judged again, and published.

Needs the runtime, not torch: what the engine must compute travels in the bundle.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2mlp_deploy.bundle import recorded_accuracy
from s2mlp_deploy.bundle.contents import GOLDEN, Artifact, Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.bundle.staging import staged
from s2mlp_deploy.errors import AccuracyError, BundleError, OutputError, UnverifiedError, UsageError
from s2mlp_deploy.formats import float16_on_cpu, memory_limit, registry
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.gate import gate as gates
from s2mlp_deploy.gate import golden, manifest_consistency
from s2mlp_deploy.gate.checks import Verdict
from s2mlp_deploy.gate.evaluation import EvaluationSet, check_images
from s2mlp_deploy.gate.io_adapter import ArtifactIo, IoAdapter
from s2mlp_deploy.pipeline.request import Export, Request, flags
from s2mlp_deploy.quantization import accuracy
from s2mlp_deploy.runtime.session import Description, description_of
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.precision import precision
from s2mlp_deploy.system import machine
from s2mlp_deploy.system.hashing import sha256
from s2mlp_deploy.system.progress import Progress

ROOM = 3
"""The engine, the graph that goes along with it, and what a compiler adds, in sizes of the graph."""


def open_bundle(directory: Path, request: Request, target: Compiler) -> Bundle:
    """The ONNX bundle at ``directory``, unchanged and of a kind that ``target`` compiles.

    Raises:
        BundleError: where it is damaged, or not an ONNX bundle.
        UsageError: where its graph is not one for this format.
    """
    bundle = read_bundle(directory)
    manifest = bundle.manifest
    if manifest.format != ONNX:
        raise BundleError(f"{directory} is a bundle of format {manifest.format!r}: expected an ONNX bundle to compile")
    if request.precision != manifest.precision:
        raise UsageError(
            f"{directory} holds a {manifest.precision} graph, and precision is a property of the graph: leave out "
            f"--precision, or export the checkpoint again with --precision {request.precision}"
        )
    if given := request.for_graph():
        raise UsageError(
            f"{flags(given)}: settled when {directory} was "
            "exported; leave out, or give the checkpoint instead of the bundle"
        )
    target.refuse_interface(manifest.interface)
    recipe = manifest.quantization
    if recipe and recipe.target not in target.targets:
        raise UsageError(
            f"{directory} is quantized for {recipe.target}, and --format {request.format} takes graphs for "
            f"{' or '.join(target.targets)}: export the checkpoint with --precision int8 --target {target.targets[0]}"
        )
    row = precision(manifest.precision)
    if row.read(manifest.arithmetic).widens_weights and row.arithmetic(request.target_of(target)).sums_in_float16:
        raise UsageError(
            f"{directory} has float16 weights and computes in float32, as CPUs do best, and --format {request.format} is to run on a "
            "GPU: export the checkpoint with --precision fp16 --target trt"
        )
    registry.inspect(bundle)
    return bundle


def compile_foreign(bundle: Bundle, target: Compiler, request: Request, progress: Progress) -> Export:
    """:func:`compile` for a bundle that was not made just now: within bounds, since its graph may ask for anything.

    Raises:
        ParityError: as :func:`compile`.
    """
    with memory_limit.bounded(bundle, on_gpu=target.for_gpu(request.options_of(target))):
        return compile(bundle, target, request, progress)


def compile(
    bundle: Bundle, target: Compiler, request: Request, progress: Progress, *,
    evaluation: EvaluationSet | None = None, report: Mapping[str, Any] | None = None,
) -> Export:  # fmt: skip
    """Publish ``bundle``'s graph as ``target``'s engine.

    ``evaluation`` are images that it is checked on besides the bundle's golden tensors; ``report`` is what was
    measured when the bundle was made, just now; without it, what the bundle's own report says of its accuracy goes along.

    Raises:
        ParityError: where the engine's numbers are off; nothing is published then.
    """
    source = bundle.manifest
    if source.precision != request.precision:
        raise BundleError(
            f"{bundle.directory} holds a {source.precision} graph, and the engine is to be {request.precision}: nothing was published"
        )
    judged = bool(source.tolerance) and GOLDEN in source.files
    pending = cannot_judge(target, request) if judged else None
    with staged(request.destination, replace=request.force) as staging:
        _check_room(bundle, staging.directory)
        with progress.step(f"compiling for {request.format}"):
            made = target.compile(bundle, staging.directory, request.options_of(target))
        verdict: Verdict | None = None
        description: Description | None = None
        figures: dict[str, Any] = {}
        if judged:
            for name in _golden_files(source):
                shutil.copyfile(bundle.directory / name, staging.directory / name)
            if made.beyond:
                golden.save(golden.load(bundle.golden).without(made.beyond), staging.directory / GOLDEN)
                progress.warn(
                    f"the {request.format} engine is not judged on {', '.join(made.beyond)}: it is built for sizes that do not reach there"
                )
        if judged and not pending:
            with progress.step(f"checking {source.precision} parity of the {request.format} engine with the reference"):
                tried = (report or {}).get("trials", [])
                verdict, figures, description = _judge(
                    staging.directory / GOLDEN, source, made, target, request, evaluation, tried
                )
        found = {
            "evidence": [],
            "pytorch_distances": {},
            "trials": [],
            **({recorded_accuracy.BUILT_FROM: recorded_accuracy.as_source(bundle)} if report is None else report),
            **figures,
            **({"engine": dict(made.report)} if made.report else {}),
            "size_bytes": sum((staging.directory / name).stat().st_size for name in made.files),
            "seconds": progress.seconds,
            "machine": machine.describe(),
        }
        manifest = _manifest(source, made, target, request, judged=judged, pending=bool(pending))
        if request.sbom:
            from s2mlp_deploy.bundle import sbom

            manifest = sbom.add(manifest, staging.directory, modules=target.modules, others=target.shipped(made))
        manifest_consistency.check(manifest, description, request.destination)
        published = staging.publish(manifest, found)
    return Export(published, verdict, found)


def cannot_judge(target: Compiler, request: Request) -> str | None:
    """Why the engine cannot be judged on this machine, where the request allows for that; None where it can be.

    Raises:
        UnverifiedError: where it cannot, and must be.
    """
    reason = target.cannot_run(request.options_of(target))
    if reason and not request.allow_unverified_engine:
        raise UnverifiedError(
            f"the {request.format} engine could be built here, but not checked ({reason}), so nothing is published. Export on "
            "the device, from this checkpoint's ONNX bundle; or pass --allow-unverified-engine, and the bundle will say that "
            "its parity is pending a device, where s2mlp-verify checks it"
        )
    return reason


def _check_room(bundle: Bundle, directory: Path) -> None:
    """Building can take minutes, and is done for nothing where the result finds no room."""
    needed, free = ROOM * bundle.size_bytes, shutil.disk_usage(directory).free
    if free < needed:
        raise OutputError(
            f"{directory.parent} has {free / 1e6:.0f} MB free, and an engine for this model may take {needed / 1e6:.0f} MB: free "
            "space, or choose another place with -o"
        )


def _judge(
    path: Path,
    source: Manifest,
    made: Artifact,
    target: Compiler,
    request: Request,
    evaluation: EvaluationSet | None,
    tried: Sequence[Mapping[str, Any]],
) -> tuple[Verdict, dict[str, Any], Description | None]:
    assert source.tolerance
    tolerance = source.tolerance
    session = target.open(made)
    adapter = IoAdapter.of(source)
    cause = float16_on_cpu.why_inexact(source, target, on_gpu=target.for_gpu(request.options_of(target)))
    verdict = gates.require(session, golden.load(path), tolerance, ArtifactIo.of(source), cause)
    figures: dict[str, Any] = {"distances": {case: vars(d) for case, d in verdict.distances.items()}}
    if evaluation and precision(source.precision).calibrated:
        left = source.quantization.float_layers if source.quantization else ()
        logits = adapter.logits(session, evaluation.images, evaluation.float_logits, evaluation.files)
        trial = accuracy.assess(left, logits, evaluation, request)
        if not trial.passed:
            raise AccuracyError(
                f"compiled for {request.format}, the int8 graph no longer keeps {accuracy.limits(trial, request)}, so "
                f"nothing was published: {accuracy.describe(trial)}"
            )
        figures["trials"] = [*tried, vars(trial)]
    elif evaluation:
        figures["images"] = vars(check_images(session, evaluation, tolerance, adapter))
    return verdict, figures, description_of(session)


def _golden_files(source: Manifest) -> list[str]:
    return [GOLDEN, *(image.file for image in source.golden_images)]


def _manifest(
    source: Manifest, made: Artifact, target: Compiler, request: Request, *, judged: bool, pending: bool
) -> Manifest:
    files = sorted([*made.files, *made.graph, *(_golden_files(source) if judged else [])])
    return source.model_copy(
        update={
            "format": request.format,
            "engine": dict(made.settings),
            "versions": {**source.versions, **target.versions()},
            "artifact": made.main,
            "graph": made.graph,
            "files": {name: sha256(made.directory / name) for name in files},
            "verdict": "pending a device" if pending else "passed" if judged else source.verdict,
        }
    )
