"""The second stage: a verified ONNX bundle is compiled for a runtime, judged again, and published.

Needs the runtime, not torch: what the engine must compute travels in the bundle.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2mlp_deploy import accuracy, artifact, golden, judge, machine
from s2mlp_deploy.artifact import GOLDEN, Artifact, Bundle
from s2mlp_deploy.digest import sha256
from s2mlp_deploy.errors import AccuracyError, BundleError, ParityError, UsageError
from s2mlp_deploy.exporter import ONNX, Compiler
from s2mlp_deploy.judge import Judges
from s2mlp_deploy.manifest import Manifest
from s2mlp_deploy.parity import Verdict
from s2mlp_deploy.progress import Progress
from s2mlp_deploy.request import Export, Request


def open_bundle(directory: Path, request: Request, target: Compiler) -> Bundle:
    """The ONNX bundle at ``directory``, unchanged and of a kind that ``target`` compiles.

    Raises:
        BundleError: where it is damaged, or not an ONNX bundle.
        UsageError: where its graph is not one for this format.
    """
    bundle = artifact.read(directory)
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
            f"{', '.join('--' + name.replace('_', '-') for name in given)}: settled when {directory} was exported; leave "
            "out, or give the checkpoint instead of the bundle"
        )
    recipe = manifest.quantization
    if recipe and recipe.target not in target.targets:
        raise UsageError(
            f"{directory} is quantized for {recipe.target}, and --format {request.format} takes graphs for "
            f"{' or '.join(target.targets)}: export the checkpoint with --precision int8 --target {target.targets[0]}"
        )
    return bundle


def compile(
    bundle: Bundle, target: Compiler, request: Request, progress: Progress, *,
    judges: Judges | None = None, report: Mapping[str, Any] | None = None,
) -> Export:  # fmt: skip
    """Publish ``bundle``'s graph as ``target``'s engine.

    ``judges`` are images that judge it besides the bundle's golden tensors; ``report`` is what was
    measured when the bundle was made.

    Raises:
        ParityError: where the engine's numbers are off; nothing is published then.
    """
    source = bundle.manifest
    with artifact.staging(request.destination, replace=request.force) as staging:
        with progress.step(f"compiling for {request.format}"):
            made = target.compile(bundle, staging.directory, request.settings)
        verdict: Verdict | None = None
        figures: dict[str, Any] = {}
        if source.tolerance and GOLDEN in source.files:
            shutil.copyfile(bundle.golden, staging.directory / GOLDEN)
            with progress.step(f"checking {source.precision} parity of the {request.format} engine with the oracle"):
                verdict, figures = _judge(staging.directory / GOLDEN, source, made, target, request, judges)
        found = {
            "evidence": [],
            "trials": [],
            **(report or {}),
            **figures,
            "size_bytes": sum((staging.directory / name).stat().st_size for name in made.files),
            "seconds": progress.seconds,
            "machine": machine.describe(),
        }
        published = staging.publish(_manifest(source, made, target, request, verdict), found)
    return Export(published, verdict, found)


def _judge(
    path: Path, source: Manifest, made: Artifact, target: Compiler, request: Request, judges: Judges | None
) -> tuple[Verdict, dict[str, Any]]:
    assert source.tolerance
    tolerance, batch = source.tolerance.tolerance(), source.batch
    session = target.open(made)
    verdict = judge.gate(session, golden.load(path), tolerance, batch)
    if not verdict.passed:
        raise ParityError(judge.failure(verdict))
    figures: dict[str, Any] = {"distances": {case: vars(d) for case, d in verdict.distances.items()}}
    if judges and source.precision == "int8":
        left = source.quantization.float_layers if source.quantization else ()
        trial = accuracy.assess(left, judge.run(session, judges.images, batch), judges, request)
        if not trial.passed:
            raise AccuracyError(
                f"compiled for {request.format}, the int8 graph no longer keeps {accuracy.limits(trial, request)}, so "
                f"nothing was published: {accuracy.describe(trial)}"
            )
        figures["trials"] = [vars(trial)]
    elif judges:
        figures["images"] = judge.judge_images(session, judges, tolerance, batch)
    return verdict, figures


def _manifest(
    source: Manifest, made: Artifact, target: Compiler, request: Request, verdict: Verdict | None
) -> Manifest:
    files = sorted([*made.files, *([GOLDEN] if verdict else [])])
    return source.model_copy(
        update={
            "format": request.format,
            "engine": dict(made.settings),
            "versions": {**source.versions, **target.versions()},
            "artifact": made.main,
            "files": {name: sha256(made.directory / name) for name in files},
        }
    )
