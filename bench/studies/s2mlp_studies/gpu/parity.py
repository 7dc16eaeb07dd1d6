"""Every lowering in every precision on everything here that runs on the device, held to the bundle's tolerance.

    python -m s2mlp_studies.gpu.parity SHEET UNTIL DEVICE CHECKPOINT IMAGES

writes a row each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from s2mlp_bench.candidate import Point
from s2mlp_bench.inputs import InputSource
from s2mlp_bench.load import candidate_of
from s2mlp_bench.runner import Runner
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.errors import Error, ParityError, RuntimeMissingError
from s2mlp_deploy.formats import registry
from s2mlp_deploy.formats.base import Compiler
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.graph.spatial_shift import LOWERINGS
from s2mlp_deploy.pipeline.deploy import deploy
from s2mlp_deploy.pipeline.request import ExportRequest, FormatOptions, GraphOptions, OutputOptions, Source
from s2mlp_deploy.quantization.settings import OPTIONS, Float16, Int8, PrecisionOptions
from s2mlp_deploy.runtime.onnxruntime import missing
from s2mlp_deploy.schema.precision import ON_GPUS
from s2mlp_studies.gpu.device import DEVICES, Device
from s2mlp_studies.gpu.sheet import Sheet

PRECISIONS = ON_GPUS


def planned(device: Device) -> list[tuple[str, ...]]:
    """What the rows are about: a runtime, a precision and a lowering."""
    return [
        ("parity", runtime, precision, lowering)
        for runtime in runtimes(device)
        for precision in PRECISIONS
        for lowering in LOWERINGS
    ]


def runtimes(device: Device) -> tuple[str, ...]:
    """ONNX Runtime's provider, which runs ONNX bundles, and the formats of engines."""
    return (device.provider, *device.engines)


def obstacle(device: Device, runtime: str) -> str | None:
    """Why nothing runs on ``runtime`` here, in words; None where it does."""
    if runtime == device.provider:
        return missing(device.provider)
    try:
        target = registry.find(runtime)
    except Error as error:  # a format of a package that is not installed
        return str(error)
    assert isinstance(target, Compiler)
    options = target.options()
    return target.cannot_compile(options) or target.cannot_run(options)


@dataclass(frozen=True)
class Subject:
    """A ``checkpoint``, and the images that int8 of it is calibrated with."""

    checkpoint: Path
    images: Path

    def bundle(self, device: Device, about: tuple[str, ...], place: Path) -> Bundle:
        """The bundle of a row, made in ``place`` unless it is there.

        Raises:
            Error: where it cannot be made.
        """
        _, runtime, precision, lowering = about
        format = ONNX if runtime == device.provider else runtime
        directory = place / f"{lowering}-{format}-{precision}"
        if not directory.exists():
            deploy(
                ExportRequest(
                    Source(self.checkpoint),
                    GraphOptions(lowering),
                    self._precision(precision, device.target),
                    FormatOptions(format),
                    output=OutputOptions(directory),
                )
            )
        return read_bundle(directory)

    def _precision(self, name: str, target: str) -> PrecisionOptions:
        made: dict[str, PrecisionOptions] = {"fp16": Float16(target=target), "int8": Int8(self.images, target=target)}
        return made.get(name) or OPTIONS[name]()


def distance(device: Device, about: tuple[str, ...], subject: Subject, place: Path) -> Mapping[str, Any]:
    """The relative L2 of the worst golden logits, its limit, and whether that is kept."""
    if reason := obstacle(device, about[1]):
        raise RuntimeMissingError(reason)
    bundle = subject.bundle(device, about, place)
    point = device.point() if about[1] == device.provider else Point()
    candidate = candidate_of(bundle, point, [bundle])
    start = time.perf_counter()
    try:
        found = Runner(candidate, InputSource([bundle]).of(candidate)).distance
    except ParityError as error:
        return {"limit": candidate.limit, "kept": False, "remark": str(error)}
    return {"relative_l2": found, "limit": candidate.limit, "kept": True, "seconds": time.perf_counter() - start}


def main() -> None:
    sheet, _, device, checkpoint, images = sys.argv[1:]
    where, out, subject = DEVICES[device], Sheet(Path(sheet)), Subject(Path(checkpoint), Path(images))
    with TemporaryDirectory() as directory:
        for about in planned(where):
            out.measure(about, lambda about=about: distance(where, about, subject, Path(directory)))  # type: ignore[misc]


if __name__ == "__main__":
    main()
