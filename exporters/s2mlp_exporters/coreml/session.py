"""Run a package in Core ML, on a Mac, through coremltools."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_deploy.errors import BundleError, RuntimeMissingError
from s2mlp_deploy.runtime.session import Description
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.coreml.options import ComputeUnits
from s2mlp_exporters.coreml.program import Program
from s2mlp_exporters.coreml.toolkit import load
from s2mlp_exporters.coreml.translate import MOST_IMAGES

UNITS: dict[ComputeUnits, str] = {
    "all": "ALL",
    "cpu": "CPU_ONLY",
    "cpu-and-gpu": "CPU_AND_GPU",
    "cpu-and-ne": "CPU_AND_NE",
}


def why_not_here() -> str | None:
    """Why Core ML does not run on this machine; None where it does."""
    system = platform.system()
    if system != "Darwin":
        return f"Core ML runs on Apple's systems, and this one is {system}"
    release = platform.mac_ver()[0]
    if int(release.split(".")[0] or 0) < 13:
        return f"Core ML runs this program from macOS 13 on, and this is {release}"
    return None


class CoreMlSession:
    """The package at ``path``, loaded by Core ML, whose ``program`` was inspected.

    Raises:
        RuntimeMissingError: where Core ML is not here.
        BundleError: where it cannot load the package.
    """

    def __init__(self, path: Path, program: Program, units: ComputeUnits) -> None:
        if reason := why_not_here():
            raise RuntimeMissingError(f"{path} cannot run here: {reason}. Copy the bundle to a Mac and verify it there")
        toolkit = load()
        self._program = program
        try:
            self._model = toolkit.models.MLModel(str(path), compute_units=getattr(toolkit.ComputeUnit, UNITS[units]))
        except Exception as error:  # Core ML's own, of any class
            raise BundleError(f"Core ML cannot load {path}: {_plain(error)}") from error

    def run(self, images: Array) -> Array:
        """The first output for ``images``, of the shape and type that the input has; a large batch is run in parts."""
        largest = 1 if self._program.image else MOST_IMAGES
        parts = [images[start : start + largest] for start in range(0, len(images), largest)]
        return np.concatenate([self._predict(part) for part in parts])

    def describe(self) -> Description:
        """Inputs, outputs and metadata, as they stand in the package."""
        return Description(self._program.inputs, self._program.outputs, self._program.metadata)

    def _predict(self, images: Array) -> Array:
        (source,), first = self._program.inputs, self._program.outputs[0]
        given: Any = np.ascontiguousarray(images, source.dtype)
        if self._program.image:
            from PIL import Image

            given = Image.fromarray(given[0] if given.shape[-1] == 3 else given[0, :, :, 0])
        try:
            found = self._model.predict({source.name: given})[first.name]
        except Exception as error:  # Core ML's own, of any class
            raise BundleError(
                f"Core ML cannot run the model on an input of {list(images.shape)}: {_plain(error)}"
            ) from error
        return np.asarray(found, first.dtype)


def _plain(error: Exception) -> str:
    """Core ML's message in one line."""
    return " ".join(str(error).split())
