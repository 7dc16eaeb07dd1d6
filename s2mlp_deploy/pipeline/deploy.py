"""deploy(): from a checkpoint to verified bundles. Read this first; it is the whole story.

    checkpoint ─▶ portable.export ─▶ ONNX bundle, verified ─▶ engine.compile ─▶ engine bundle, verified

A checkpoint goes through both stages, an ONNX bundle through the second alone, which needs no torch:
a device finishes what a workstation prepared. Nothing is published unless the gate passes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.bundle.staging import check_destination
from s2mlp_deploy.errors import BundleError, OutputError, RuntimeMissingError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Compiler, Exporter
from s2mlp_deploy.formats.onnx import OnnxFile
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.pipeline import compile as compile_stage
from s2mlp_deploy.pipeline.request import SYNTHETIC, Export, Request, flags
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS
from s2mlp_deploy.schema.precision import PRECISIONS, having, precision
from s2mlp_deploy.system import workdir
from s2mlp_deploy.system.dependencies import pip_install
from s2mlp_deploy.system.progress import Listener, Progress

if TYPE_CHECKING:  # need torch, and a bundle does not
    from s2mlp_deploy.gate.evaluation import EvaluationSet
    from s2mlp_deploy.pipeline.export_onnx import CheckpointContext

__all__ = ["Export", "Listener", "Request", "deploy", "deploy_all"]


OWN = frozenset({
    "format", "precision", "output", "force", "settings", "lowering", "io_dtype", "target", "calibration", "calibration_count",
    "calibration_method", "max_accuracy_drop", "min_agreement", "quantize_ends", "allow_unverified_engine",
})  # fmt: skip
"""What each of several artifacts of one checkpoint has for itself."""


def deploy(request: Request, listener: Listener | None = None) -> Export:
    """Export ``request.source`` as one verified bundle.

    Raises:
        ParityError: where the artifact's numbers are off; nothing is published then.
        Error: for everything else that errors.py lists.
    """
    (made,) = deploy_all([request], listener)
    return made


def deploy_all(requests: Sequence[Request], listener: Listener | None = None) -> Iterator[Export]:
    """Export one source in several formats and precisions, one after another; what they share is done once.

    Raises:
        UsageError: where the requests differ in what is shared.
        Error: as :func:`deploy`. What was published before stays.
    """
    requests = [_one_at_a_time(request) for request in requests]
    targets = [_format(request) for request in requests]
    _check_shared(requests)
    if requests[0].sbom:
        _check_sbom()
    for request in requests:
        workdir.sweep(request.destination.parent)  # gives back what an export that was killed has left aside
        check_destination(request.destination, replace=request.force)
    bundles = [
        _open(request, target) if request.from_bundle else None
        for request, target in zip(requests, targets, strict=True)
    ]
    work = _Work(several=len(requests) > 1)
    for request, target, bundle in zip(requests, targets, bundles, strict=True):
        progress = Progress(listener or Listener())
        if bundle and isinstance(target, Compiler):
            yield compile_stage.compile_foreign(bundle, target, request, progress)
        else:
            yield _from_checkpoint(request, target, progress, work)


def _check_shared(requests: Sequence[Request]) -> None:
    """What is known of a checkpoint, its golden inputs among it, depends on everything that is not an artifact's own."""
    first, *others = requests
    shared = [f.name for f in fields(Request) if f.name not in OWN]
    for other in others:
        if different := [name for name in shared if getattr(other, name) != getattr(first, name)]:
            raise UsageError(f"{flags(different)}: artifacts that are made together must have this in common")


def _check_sbom() -> None:
    try:
        from s2mlp_deploy.bundle import sbom  # noqa: F401
    except ImportError as error:
        raise RuntimeMissingError(
            f"--sbom needs the package cyclonedx-python-lib ({error}): {pip_install('sbom')}"
        ) from error


def _open(request: Request, target: Exporter | Compiler) -> Bundle:
    """The bundle that ``request`` compiles, after all that could be wrong with asking for it."""
    if not isinstance(target, Compiler):
        raise UsageError(
            f"{request.source} is a directory, and --format {request.format} is made from a checkpoint: give the "
            "checkpoint's file, or another --format for an ONNX bundle"
        )
    bundle = compile_stage.open_bundle(request.source, request, target)
    if reason := target.cannot_compile(request.options_of(target)):
        raise RuntimeMissingError(_way_on(request, target, reason, bundle))
    return bundle


def _from_checkpoint(request: Request, target: Exporter | Compiler, progress: Progress, work: _Work) -> Export:
    from s2mlp_deploy.pipeline import export_onnx

    reason = target.cannot_compile(request.options_of(target)) if isinstance(target, Compiler) else None
    if isinstance(target, Compiler) and not reason and request.gate and request.calibration != SYNTHETIC:
        compile_stage.cannot_judge(target, request)  # before the work that would be for nothing
    if work.several and work.context is None:
        work.context = export_onnx.read_checkpoint(request, progress)
    if isinstance(target, Exporter):
        made, evaluation = export_onnx.export(request, target, progress, work.context)
        if request.format == ONNX:
            work.graphs[request.precision, _recipe(request, target)] = made, evaluation
        return made
    if reason:
        graph_bundle = _graph_for_elsewhere(request, target, reason, progress, work)
        raise RuntimeMissingError(_way_on(request, target, reason, graph_bundle))
    with workdir.beside(request.destination) as place:
        graph, evaluation = _graph(request, target, place / ONNX, progress, work)
        return compile_stage.compile(
            graph.bundle, target, request, progress, evaluation=evaluation, report=graph.report
        )


@dataclass
class _Work:
    """What the artifacts of one checkpoint share: what is known of it, and ONNX bundles by precision and recipe."""

    several: bool
    context: CheckpointContext | None = None
    graphs: dict[tuple[str, str | None], tuple[Export, EvaluationSet | None]] = field(default_factory=dict)


def _graph(
    request: Request, target: Compiler, output: Path, progress: Progress, work: _Work
) -> tuple[Export, EvaluationSet | None]:
    """The ONNX bundle that ``target`` compiles: one that is there already, or a new one, ``output``."""
    from s2mlp_deploy.pipeline import export_onnx

    recipe = _recipe(request, target)
    if (request.precision, recipe) in work.graphs:
        return work.graphs[request.precision, recipe]
    graph = replace(request, format=ONNX, output=output, settings={}, target=recipe)
    return export_onnx.export(graph, OnnxFile(), progress, work.context)


def _graph_for_elsewhere(request: Request, target: Compiler, reason: str, progress: Progress, work: _Work) -> Bundle:
    """The ONNX bundle to take to a device: beside where the engine would be, and there already after a first try.

    Nobody named that place, so whatever else lies there stays, ``force`` or not.

    Raises:
        OutputError: where something else lies there.
    """
    place = request.graph_destination
    progress.warn(
        f"{_cannot_build(request, reason.partition(': ')[0])}, so an ONNX bundle is made, which another machine can build it from"
    )
    if not os.path.lexists(place):
        return _graph(replace(request, force=False), target, place, progress, work)[0].bundle
    # The same request gives the same bytes, so whether that is the bundle can be told for certain.
    with suppress(BundleError), workdir.beside(place) as directory:
        known = read_bundle(place)
        if known.manifest == _graph(request, target, directory / ONNX, progress, work)[0].bundle.manifest:
            return known
    raise OutputError(
        f"{_cannot_build(request, reason)}. And the ONNX bundle to build it from elsewhere finds its place taken, which --force does not "
        f"replace: {place} was made from another checkpoint or with other options. Move it away, or choose another place with -o"
    )


def _recipe(request: Request, target: Exporter | Compiler) -> str | None:
    return request.target_of(target) if precision(request.precision).targets else None


def _way_on(request: Request, target: Compiler, reason: str, bundle: Bundle) -> str:
    """How to get the engine where this machine cannot build it, in order of use."""
    words = ["s2mlp-export", bundle.directory.resolve().name, "--format", request.format]
    for name, value in request.settings.items():
        flag = registry.flags(request.format, name)
        words += [flag] if value is True else [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
    known = "verified" if bundle.manifest.verdict == "passed" else bundle.manifest.precision
    return (
        f"{_cannot_build(request, reason)}. Copy the {known} ONNX bundle {bundle.directory} "
        f"to the device, and run there: {shlex.join(words)}" + (f". {target.alternative}" if target.alternative else "")
    )


def _cannot_build(request: Request, reason: str) -> str:
    return f"--format {request.format} cannot be built on this machine: {reason}"


def _one_at_a_time(request: Request) -> Request:
    """Images of different sizes cannot lie in one batch, so an artifact that takes them takes one."""
    if request.interface.input != "image" or request.from_bundle:
        return request
    if request.batch not in (None, 1):
        raise UsageError(
            f"--input image takes one image of any size at a time, and --batch is {request.batch}: leave it out, or use --input "
            "uint8"
        )
    return replace(request, batch=1)


def _format(request: Request) -> Exporter | Compiler:
    """The format asked for, after refusing what it, or nobody, can do."""
    target = registry.find(request.format)
    if request.precision not in target.precisions or request.precision not in PRECISIONS:
        raise UsageError(
            f"--format {request.format} cannot be made with --precision {request.precision}: expected "
            + " or ".join(p for p in target.precisions if p in PRECISIONS)
        )
    request.options_of(target)
    row = precision(request.precision)
    if not row.calibrated and request.calibration:
        raise UsageError(f"--calibration is for --precision {having(lambda p: p.calibrated)}")
    if not row.targets and request.target:
        raise UsageError(f"--target is for --precision {having(lambda p: p.targets)}")
    if request.target is not None and request.target not in target.targets:
        raise UsageError(
            f"--format {request.format} does not take {request.precision} graphs for --target {request.target}: expected "
            + " or ".join(target.targets)
        )
    if request.dtype not in row.io_types:
        raise UsageError(
            f"--io-dtype {request.io_dtype} is for --precision {having(lambda p: request.dtype in p.io_types)}"
        )
    if request.dtype != row.io_types[0] and request.interface != FLOAT_LOGITS:
        raise UsageError(
            f"--io-dtype {request.io_dtype} is for prepared images and logits: leave out --input and --answer"
        )
    target.refuse_interface(request.interface)
    return target
