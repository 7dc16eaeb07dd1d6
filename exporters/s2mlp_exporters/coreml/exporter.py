"""``--format coreml``: a Core ML package, ``model.mlpackage``, for iPhones, iPads and Macs.

The program is written from the graph of the ONNX bundle, operator by operator, and read back and recomputed here. Core ML
itself runs on Apple's systems alone, so elsewhere a bundle is published as pending a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.schema.precision import QUANTIZED_AT_RUNTIME
from s2mlp_deploy.schema.strict_model import StrictModel
from s2mlp_exporters.coreml import artifact_scan
from s2mlp_exporters.coreml.options import ComputeUnits, CoreMlOptions
from s2mlp_exporters.coreml.package import FILES
from s2mlp_exporters.coreml.recompute import RecomputedSession
from s2mlp_exporters.coreml.session import CoreMlSession, why_not_here
from s2mlp_exporters.coreml.toolkit import MODULE, PACKAGE, REMEDY, toolkit_version
from s2mlp_exporters.coreml.translate import translate


class Settings(StrictModel):
    """Recorded settings of a Core ML package."""

    runtime: Literal["coreml"] = "coreml"
    compute_units: ComputeUnits


class CoreMlPackage(Compiler):
    """Writes ``model.mlpackage``, recomputes it anywhere, and runs it on a Mac."""

    name = "coreml"
    precisions = ("fp32", "fp16", *QUANTIZED_AT_RUNTIME)
    options = CoreMlOptions
    targets = ("arm", "x86", "trt")
    inputs = ("float", "uint8")
    outputs = ("logits", "probabilities")
    modules = (MODULE,)
    install_hint = REMEDY

    def cannot_compile(self, options: CoreMlOptions) -> str | None:
        """The reason where coremltools is missing; else None."""
        return None if find_spec(MODULE) else f"this needs the package {PACKAGE}: {REMEDY}"

    def cannot_run(self, options: CoreMlOptions) -> str | None:
        """The same reason, or that this is no Mac."""
        return self.cannot_compile(options) or why_not_here()

    def compile(self, bundle: Bundle, destination: Path, options: CoreMlOptions) -> Artifact:
        """Write the bundle's model as a package; every weight keeps its type.

        Raises:
            RuntimeMissingError: where coremltools is not here.
            CompilerError: where the graph has an operator without a translation.
            UsageError: where the model serves more than one size, or takes several images at once as images.
        """
        translate(bundle.artifact.path, destination)
        settings = Settings(compute_units=options.compute_units)
        return Artifact(destination, FILES[0], FILES, settings.model_dump())

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute."""
        recorded(bundle.artifact, Settings)
        refuse_other_files(bundle, *FILES)
        artifact_scan.inspect(bundle.directory)

    def recompute(self, artifact: Artifact) -> RecomputedSession:
        """The program as it was written, computed in float64 in place of Core ML."""
        return RecomputedSession(artifact_scan.inspect(artifact.directory))

    def open(self, artifact: Artifact) -> CoreMlSession:
        """Load the package in Core ML.

        Raises:
            RuntimeMissingError: where this is no Mac, or coremltools is not here.
            BundleError: where Core ML cannot load the package, or the settings are not what ``compile`` records.
        """
        units = recorded(artifact, Settings).compute_units
        return CoreMlSession(artifact.path.parent, artifact_scan.inspect(artifact.directory), units)

    def versions(self) -> Mapping[str, str]:
        """coremltools has the schema and the builder that the package is written with."""
        return {PACKAGE: toolkit_version()}
