"""deploy(): from a checkpoint to verified bundles. Read this first; it is the whole story.

    checkpoint ─▶ export_onnx.export ─▶ ONNX bundle, verified ─▶ compile.compile ─▶ engine bundle, verified

A checkpoint goes through both stages, an ONNX bundle through the second alone, which needs no torch:
a device finishes what a workstation prepared. Nothing is published unless the gate passes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.bundle.staging import check_destination
from s2mlp_deploy.errors import BundleError, Error, OutputError, RuntimeMissingError, UsageError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Compiler, Exporter
from s2mlp_deploy.formats.onnx import OnnxFile
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.pipeline import compile as compile_stage
from s2mlp_deploy.pipeline import request_checks
from s2mlp_deploy.pipeline.request import Export, ExportRequest, FormatOptions
from s2mlp_deploy.quantization.settings import Float16, Int8, PrecisionOptions
from s2mlp_deploy.system import workdir
from s2mlp_deploy.system.progress import Listener, Progress

if TYPE_CHECKING:  # need torch, and a bundle does not
    from s2mlp_deploy.gate.evaluation import EvaluationSet
    from s2mlp_deploy.pipeline.checkpoint_context import CheckpointContext

__all__ = ["Export", "ExportRequest", "Listener", "deploy", "deploy_all", "deploy_each"]


def deploy(request: ExportRequest, listener: Listener | None = None) -> Export:
    """Export the request's source as one verified bundle.

    Raises:
        ParityError: where the artifact's numbers are off; nothing is published then.
        Error: for everything else that errors.py lists.
    """
    (made,) = deploy_all([request], listener)
    return made


def deploy_all(requests: Sequence[ExportRequest], listener: Listener | None = None) -> Iterator[Export]:
    """Export one source in several formats and precisions, one after another; shared work is done once.

    Raises:
        UsageError: where the requests differ in a shared field.
        Error: as :func:`deploy`. Bundles published before it stay.
    """
    for made in deploy_each(requests, listener):
        if isinstance(made, Error):
            raise made
        yield made


def deploy_each(requests: Sequence[ExportRequest], listener: Listener | None = None) -> Iterator[Export | Error]:
    """As :func:`deploy_all`, but where an export fails its error takes its place, and the others go on.

    Raises:
        UsageError: where the requests differ in a shared field.
        Error: where one of them cannot be fulfilled, as far as that is known before the work begins.
    """
    pairs = [request_checks.checked(request) for request in requests]
    request_checks.check_shared([request for request, _ in pairs])
    for request, _ in pairs:
        workdir.sweep(request.destination.parent)  # restores the bundle that a killed export had moved aside
        check_destination(request.destination, replace=request.output.force)
    bundles = [_open(request, target) if request.source.is_bundle else None for request, target in pairs]
    shared = _Shared(several=len(pairs) > 1)
    for (request, target), bundle in zip(pairs, bundles, strict=True):
        progress = Progress(listener or Listener())
        made: Export | Error
        try:
            if bundle and isinstance(target, Compiler):
                made = compile_stage.compile_foreign(bundle, target, request, progress)
            else:
                made = _from_checkpoint(request, target, progress, shared)
        except Error as error:
            made = error
        yield made


def _open(request: ExportRequest, target: Exporter | Compiler) -> Bundle:
    """The bundle that ``request`` compiles, where it can be compiled here."""
    if not isinstance(target, Compiler):
        raise UsageError(
            f"{request.source.path} is a directory, and --format {request.format.name} is made from a checkpoint: give the "
            "checkpoint's file, or another --format for an ONNX bundle"
        )
    bundle = compile_stage.open_bundle(request, target)
    if reason := target.cannot_compile(request.options_of(target)):
        raise RuntimeMissingError(_way_on(request, target, reason, bundle))
    return bundle


def _from_checkpoint(
    request: ExportRequest, target: Exporter | Compiler, progress: Progress, shared: _Shared
) -> Export:
    from s2mlp_deploy.pipeline import export_onnx
    from s2mlp_deploy.pipeline.checkpoint_context import read_checkpoint

    reason = target.cannot_compile(request.options_of(target)) if isinstance(target, Compiler) else None
    if isinstance(target, Compiler) and not reason and request.evidence.gate and not request.synthetic:
        compile_stage.cannot_check(target, request)  # before the work that would be for nothing
    if shared.several and shared.context is None:
        shared.context = read_checkpoint(request, progress)
    if isinstance(target, Exporter):
        made, evaluation = export_onnx.export(request, target, progress, shared.context)
        if request.format.name == ONNX:
            shared.graphs[_graph_key(request, target)] = made, evaluation
        return made
    if reason:
        graph_bundle = _graph_for_elsewhere(request, target, reason, progress, shared)
        raise RuntimeMissingError(_way_on(request, target, reason, graph_bundle))
    with workdir.beside(request.destination) as place:
        graph, evaluation = _graph(_unseen(request), target, place / ONNX, progress, shared)
        return compile_stage.compile(graph.bundle, target, request, progress, graph.report, evaluation)


@dataclass
class _Shared:
    """The shared state of one checkpoint's artifacts: its context, and ONNX bundles by lowering and precision."""

    several: bool
    context: CheckpointContext | None = None
    graphs: dict[tuple[str, PrecisionOptions], tuple[Export, EvaluationSet | None]] = field(default_factory=dict)


def _graph(
    request: ExportRequest, target: Compiler, directory: Path, progress: Progress, shared: _Shared
) -> tuple[Export, EvaluationSet | None]:
    """The ONNX bundle that ``target`` compiles: one that is there already, or a new one in ``directory``."""
    from s2mlp_deploy.pipeline import export_onnx

    key = _graph_key(request, target)
    if key in shared.graphs:
        return shared.graphs[key]
    graph = replace(
        request,
        precision=key[1],
        format=FormatOptions(ONNX),
        output=replace(request.output, directory=directory),
    )
    return export_onnx.export(graph, OnnxFile(), progress, shared.context)


def _graph_for_elsewhere(
    request: ExportRequest, target: Compiler, reason: str, progress: Progress, shared: _Shared
) -> Bundle:
    """The ONNX bundle to take to a device: beside where the engine would be, and there already after a first try.

    Nobody named that place, so other files there stay, ``force`` or not.

    Raises:
        OutputError: where something else lies there.
    """
    place = request.graph_destination
    progress.warn(
        f"{_cannot_build(request, reason.partition(': ')[0])}, so an ONNX bundle is made, which another machine can build it from"
    )
    if not os.path.lexists(place):
        return _graph(_not_forced(request), target, place, progress, shared)[0].bundle
    # The same request gives the same bytes, so comparing them shows whether that is the bundle.
    with suppress(BundleError), workdir.beside(place) as directory:
        known = read_bundle(place)
        if known.manifest == _graph(_unseen(request), target, directory / ONNX, progress, shared)[0].bundle.manifest:
            return known
    raise OutputError(
        f"{_cannot_build(request, reason)}. And the ONNX bundle to build it from elsewhere finds its place taken, which --force does not "
        f"replace: {place} was made from another checkpoint or with other options. Move it away, or choose another place with -o"
    )


def _not_forced(request: ExportRequest) -> ExportRequest:
    return replace(request, output=replace(request.output, force=False))


def _unseen(request: ExportRequest) -> ExportRequest:
    """``request`` for a bundle that nobody sees."""
    return replace(request, output=replace(request.output, sign=None, card=False, license=None))


def _graph_key(request: ExportRequest, target: Exporter | Compiler) -> tuple[str, PrecisionOptions]:
    """What one checkpoint's ONNX graphs differ in: the lowering, and the precision with the processor that it is for."""
    precision = request.precision
    if isinstance(precision, Float16 | Int8):
        precision = replace(precision, target=request.target_of(target))
    return request.graph.lowering, precision


def _way_on(request: ExportRequest, target: Compiler, reason: str, bundle: Bundle) -> str:
    """The steps to get the engine where this machine cannot build it."""
    words = ["s2mlp-export", bundle.directory.resolve().name, "--format", request.format.name]
    for name, value in request.format.options.items():
        flag = registry.flags(request.format.name, name)
        words += [flag] if value is True else [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
    known = "verified" if bundle.manifest.verdict == "passed" else bundle.manifest.precision
    return (
        f"{_cannot_build(request, reason)}. Copy the {known} ONNX bundle {bundle.directory} "
        f"to the device, and run there: {shlex.join(words)}" + (f". {target.alternative}" if target.alternative else "")
    )


def _cannot_build(request: ExportRequest, reason: str) -> str:
    return f"--format {request.format.name} cannot be built on this machine: {reason}"
