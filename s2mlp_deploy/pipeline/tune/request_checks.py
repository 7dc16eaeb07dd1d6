"""Refuse a tune that contradicts itself, before any work is done."""

from __future__ import annotations

import os

from s2mlp_deploy.bundle import signature
from s2mlp_deploy.bundle.contents import MANIFEST
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.bundle.staging import check_destination
from s2mlp_deploy.errors import BundleError, CheckpointError, UsageError
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.pipeline.request import ExportRequest, refuse_settled
from s2mlp_deploy.pipeline.request_checks import check_source
from s2mlp_deploy.pipeline.tune.request import TuneRequest
from s2mlp_deploy.quantization.settings import OPTIONS, PrecisionOptions
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.system import atomic_write, workdir
from s2mlp_deploy.system.hashing import sha256


def checked(request: TuneRequest) -> tuple[str, PrecisionOptions | None]:
    """The hash of the source, and the precision that it is at where it is a bundle.

    Raises:
        UsageError: where the request contradicts itself.
        OutputError: where its results could not be written.
        CheckpointError, BundleError: where the source cannot be read.
    """
    if request.limits.accuracy_drop is not None and not request.evidence.data:
        raise UsageError("--max-accuracy-drop needs --data: labelled images that accuracy is measured on")
    if request.int8.synthetic:
        raise UsageError(
            "--calibration synthetic is for measuring speed alone, and a tune publishes what is used: give images"
        )
    if not request.evidence.gate:
        raise UsageError("--no-gate: a tune chooses among artifacts that were checked; leave it out")
    check_source(request.source)
    if request.output.sign:
        signature.check_key(request.output.sign)
    workdir.sweep(request.destination.parent)
    check_destination(request.destination, replace=request.output.force)
    if request.report.parent.is_dir():
        atomic_write.check(request.report, replace=request.output.force or _was_interrupted(request), option="-o")
    return source_hash(request), _precision_of_bundle(request) if request.source.is_bundle else None


def _was_interrupted(request: TuneRequest) -> bool:
    """Whether an earlier tune has left its candidates, and no bundle: a report that is there is its own."""
    return request.work.is_dir() and not os.path.lexists(request.destination)


def source_hash(request: TuneRequest) -> str:
    """The hash of the checkpoint, or of the bundle's manifest, which has those of its files.

    Raises:
        CheckpointError: where it cannot be read.
    """
    path = request.source.path / MANIFEST if request.source.is_bundle else request.source.path
    try:
        return sha256(path)
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror}. Expected a checkpoint's file, or a bundle"
        ) from error


def _precision_of_bundle(request: TuneRequest) -> PrecisionOptions:
    manifest = read_bundle(request.source.path, request.source.publisher).manifest
    if manifest.format != ONNX:
        raise BundleError(
            f"{request.source.path} is a bundle of format {manifest.format!r}: expected an ONNX bundle, or a checkpoint"
        )
    if isinstance(manifest.spec, OnnxNetwork):
        raise UsageError(
            f"{request.source.path} holds a repaired network, and a tune is for image classifiers: use s2mlp-export"
        )
    precision = OPTIONS[manifest.precision]()
    wanted = ExportRequest(request.source, precision=precision, evidence=request.evidence)
    calibration = ["calibration"] if request.int8.calibration is not None else []
    refuse_settled([*wanted.settled_by_a_bundle(), *calibration], request.source.path)
    return precision
