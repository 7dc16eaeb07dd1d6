"""deploy(): from a checkpoint to verified bundles. Read this first; it is the whole story.

    checkpoint ─▶ portable.export ─▶ ONNX bundle, verified ─▶ engine.compile ─▶ engine bundle, verified

A checkpoint goes through both stages, an ONNX bundle through the second alone, which needs no torch:
a device finishes what a workstation prepared. Nothing is published unless the gate passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from s2mlp_deploy import artifact, engine, exporter, parity
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.exporter import ONNX, Compiler, Exporter
from s2mlp_deploy.progress import Listener, Progress
from s2mlp_deploy.request import Export, Request

if TYPE_CHECKING:  # needs torch, and a bundle does not
    from s2mlp_deploy.portable import Study

__all__ = ["Export", "Listener", "Request", "deploy", "deploy_all"]


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
        Error: as :func:`deploy`. What was published before stays.
    """
    targets = [_format(request) for request in requests]
    for request in requests:
        artifact.check_destination(request.destination, replace=request.force)
    known: Study | None = None
    for request, target in zip(requests, targets, strict=True):
        progress = Progress(listener or Listener())
        if request.from_bundle:
            yield _from_bundle(request, target, progress)
            continue
        from s2mlp_deploy import portable

        if len(requests) > 1 and known is None:
            known = portable.study(request, progress)
        yield _from_checkpoint(request, target, progress, known)


def _from_bundle(request: Request, target: Exporter | Compiler, progress: Progress) -> Export:
    if not isinstance(target, Compiler):
        raise UsageError(
            f"{request.source} is a directory, and --format {request.format} is made from a checkpoint: give the "
            "checkpoint's file, or another --format for an ONNX bundle"
        )
    return engine.compile(engine.open_bundle(request.source, request, target), target, request, progress)


def _from_checkpoint(request: Request, target: Exporter | Compiler, progress: Progress, known: Study | None) -> Export:
    from s2mlp_deploy import portable

    if isinstance(target, Exporter):
        return portable.export(request, target, progress, known)[0]
    graph_format = exporter.find(ONNX)
    assert isinstance(graph_format, Exporter)
    with artifact.scratch(request.destination) as place:
        recipe = request.target or (target.targets[0] if request.precision == "int8" else None)
        graph = replace(request, format=ONNX, output=place / ONNX, settings={}, target=recipe)
        lowered, judges = portable.export(graph, graph_format, progress, known)
        return engine.compile(lowered.bundle, target, request, progress, judges=judges, report=lowered.report)


def _format(request: Request) -> Exporter | Compiler:
    """The format asked for, after refusing what it, or nobody, can do."""
    target = exporter.find(request.format)
    if request.precision not in target.precisions or request.precision not in parity.RULES:
        raise UsageError(
            f"--format {request.format} cannot be made with --precision {request.precision}: expected "
            + " or ".join(p for p in target.precisions if p in parity.RULES)
        )
    if unknown := sorted(request.settings.keys() - set(target.options)):
        raise UsageError(
            f"{_flags(unknown)}: not for --format {request.format}"
            + (f", which knows {_flags(target.options)}" if target.options else "")
        )
    if request.precision != "int8" and (request.target or request.calibration):
        raise UsageError("--target and --calibration are for --precision int8")
    if request.target is not None and request.target not in target.targets:
        raise UsageError(
            f"--format {request.format} does not take int8 graphs for --target {request.target}: expected "
            + " or ".join(target.targets)
        )
    if request.io_dtype == "fp16" and request.precision != "fp16":
        raise UsageError("--io-dtype fp16 is for --precision fp16")
    return target


def _flags(names: Iterable[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)
