"""``--format litert``: LiteRT's own file, ``model.tflite``, for phones and small boards, run on the processor.

The file is written from the graph of the ONNX bundle, operator by operator, by the schema that LiteRT is released
with. No converter decides what becomes of the graph, and the bytes are the same every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.options import Options
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.precision import LITERT, QUANTIZED_AT_RUNTIME
from s2mlp_exporters.litert import artifact_scan
from s2mlp_exporters.litert.schema import MODULE, PACKAGE, REMEDY, litert_version
from s2mlp_exporters.litert.session import LiteRtSession
from s2mlp_exporters.litert.translate import translate

MODEL = "model.tflite"

LIMIT_BYTES = 2**31
"""A .tflite file is a FlatBuffer, which can be no larger."""


class Settings(BaseModel):
    """Recorded settings of a model for LiteRT."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runtime: Literal["litert"] = "litert"
    runtime_version: str


class LiteRtModel(Compiler):
    """Writes ``model.tflite`` and runs it."""

    name = "litert"
    precisions = ("fp32", "fp16", "int8", *QUANTIZED_AT_RUNTIME)
    options = Options
    targets = ("arm", "x86")
    calibrated_targets = (LITERT.name,)
    inputs = ("float", "uint8")
    outputs = ("logits", "probabilities")
    modules = (MODULE,)
    install_hint = REMEDY

    def cannot_compile(self, options: Options) -> str | None:
        """The reason where ai-edge-litert is missing; else None."""
        return None if find_spec(MODULE) else f"this needs the package {PACKAGE}: {REMEDY}"

    def cannot_run(self, options: Options) -> str | None:
        """The same reason: where a model is written it also runs."""
        return self.cannot_compile(options)

    def compile(self, bundle: Bundle, destination: Path, options: Options) -> Artifact:
        """Write the bundle's model as LiteRT reads it; every weight keeps its type.

        Raises:
            RuntimeMissingError: where ai-edge-litert is not here.
            CompilerError: where the graph has an operator without a translation.
            UsageError: where the model is too large for the format, or serves more than one size.
        """
        settings = Settings(runtime_version=litert_version())
        if bundle.size_bytes >= LIMIT_BYTES:
            raise UsageError(
                f"{bundle.directory} takes {bundle.size_bytes / 1e9:.1f} GB, and a .tflite file can hold {LIMIT_BYTES / 1e9:.1f} GB: "
                "export the checkpoint with --precision fp16"
            )
        with (destination / MODEL).open("wb") as file:
            for part in translate(bundle.artifact.path):
                file.write(part)
        return Artifact(destination, MODEL, (MODEL,), settings.model_dump())

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute."""
        recorded(bundle.artifact, Settings)
        refuse_other_files(bundle, MODEL)
        artifact_scan.inspect(bundle.artifact.path)

    def open(self, artifact: Artifact) -> LiteRtSession:
        """Load the model, to run on all processors.

        Raises:
            RuntimeMissingError: where ai-edge-litert is not here, or is older than the file.
            BundleError: where it cannot load the file, or the settings are not what ``compile`` records.
        """
        return self.open_with_threads(artifact, None)

    def examples(self, manifest: Manifest) -> Mapping[str, str]:
        """Code for LiteRT in Python."""
        return {
            "python": "from ai_edge_litert.interpreter import Interpreter\n\n"
            f'classify = Interpreter("{manifest.artifact}").get_signature_runner()\n'
            f'print(classify({manifest.input.name}=prepared)["{manifest.output.name}"])'
        }

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> LiteRtSession:
        """The same, on ``threads`` threads."""
        return LiteRtSession(artifact.path, recorded(artifact, Settings).runtime_version, threads)

    def versions(self) -> Mapping[str, str]:
        """ai-edge-litert has the schema that the file is written by."""
        return {PACKAGE: litert_version()}
