"""The artifacts that are compared: each format for devices in each of its precisions, as far as it can be made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from s2mlp_deploy.errors import Error, RuntimeMissingError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.pipeline.deploy import deploy_each
from s2mlp_deploy.pipeline.request import ExportRequest, FormatOptions, OutputOptions, Source
from s2mlp_deploy.quantization.settings import OPTIONS, Int8, PrecisionOptions
from s2mlp_deploy.schema.precision import FP32, INT8, INT8W
from s2mlp_deploy.system.progress import Listener

ONNX, LITERT, EXECUTORCH = "onnx", "litert", "executorch"

ARTIFACTS = (
    (ONNX, FP32.name),
    (ONNX, INT8.name),
    (LITERT, FP32.name),
    (LITERT, INT8W.name),
    (LITERT, INT8.name),
    (EXECUTORCH, FP32.name),
    (EXECUTORCH, INT8W.name),
    (EXECUTORCH, INT8.name),
)
"""Formats and precisions; ONNX Runtime's come first, which all others are compared with."""


@dataclass(frozen=True)
class Subject:
    """A checkpoint under a ``title``, and what int8 of it is calibrated with: a folder of images, or noise."""

    name: str
    title: str
    checkpoint: Path
    calibration: str | Path


@dataclass(frozen=True)
class Made:
    """Bundles by format and precision, and for those that could not be made the reason."""

    bundles: Mapping[tuple[str, str], Path]
    left_out: Mapping[str, str]


def make(subject: Subject, directory: Path, listener: Listener) -> Made:
    """Make every artifact of ``subject`` that can be made here, as a bundle in ``directory``.

    Raises:
        Error: where one of ONNX Runtime's cannot.
    """
    bundles, left_out, wanted = {}, {}, {}
    for format, precision in ARTIFACTS:
        place = directory / bundle_name(subject.name, format, precision)
        if reason := missing(format, precision):
            left_out[place.name] = reason
        else:
            wanted[format, precision] = place
    requests = [_request(subject, *kind, place) for kind, place in wanted.items()]
    for (kind, place), made in zip(wanted.items(), deploy_each(requests, listener), strict=True):
        if not isinstance(made, Error):
            bundles[kind] = place
        elif ONNX in kind:
            raise made
        else:
            left_out[place.name] = str(made)
    for name, reason in left_out.items():
        listener.warn(f"{name} is left out: {reason}")
    return Made(bundles, left_out)


def bundle_name(subject: str, format: str, precision: str) -> str:
    """The name of a bundle, and of its candidate."""
    return f"{subject}-{format}-{precision}"


def missing(format: str, precision: str) -> str | None:
    """The reason why this project, or this machine, has no such artifact; None where it has."""
    if format not in registry.names():
        return f"there is no format {format}"
    try:
        target = registry.find(format)
    except RuntimeMissingError as error:
        return str(error)
    if precision not in target.precisions:
        return f"--format {format} has no {precision}"
    return target.cannot_compile(target.options()) if isinstance(target, Compiler) else None


def _request(subject: Subject, format: str, precision: str, place: Path) -> ExportRequest:
    options: PrecisionOptions = OPTIONS[precision]()
    if isinstance(options, Int8):
        options = replace(options, calibration=subject.calibration)
    return ExportRequest(
        Source(subject.checkpoint), precision=options, format=FormatOptions(format), output=OutputOptions(place)
    )
