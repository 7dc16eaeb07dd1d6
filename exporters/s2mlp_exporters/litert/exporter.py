"""``--format litert``: LiteRT's own file, ``model.tflite``, for phones and small boards, run on the processor.

The file is written from the graph of the ONNX bundle, operator by operator, by the schema that LiteRT is released
with. No converter decides what becomes of the graph, and the bytes are the same every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.precision import LITERT, LITERT_MICRO, QUANTIZED_AT_RUNTIME
from s2mlp_deploy.schema.strict_model import StrictModel
from s2mlp_exporters.litert import artifact_scan, vela
from s2mlp_exporters.litert.options import LiteRtOptions, Npu
from s2mlp_exporters.litert.schema import MODULE, PACKAGE, REMEDY, litert_version
from s2mlp_exporters.litert.session import LiteRtSession
from s2mlp_exporters.litert.translate import translate

MODEL = "model.tflite"

LIMIT_BYTES = 2**31
"""A .tflite file is a FlatBuffer, which can be no larger."""


class Settings(StrictModel):
    """Recorded settings of a model for LiteRT."""

    runtime: Literal["litert"] = "litert"
    runtime_version: str
    npu: Npu | None = None
    vela_version: str | None = None


class LiteRtModel(Compiler):
    """Writes ``model.tflite`` and runs it."""

    name = "litert"
    precisions = ("fp32", "fp16", "int8", *QUANTIZED_AT_RUNTIME)
    options = LiteRtOptions
    targets = ("arm", "x86")
    calibrated_targets = (LITERT.name, LITERT_MICRO.name)
    inputs = ("float", "uint8")
    outputs = ("logits", "probabilities")
    modules = (MODULE,)
    install_hint = REMEDY

    def cannot_compile(self, options: LiteRtOptions) -> str | None:
        """The reason where ai-edge-litert, or Vela for an NPU, is missing; else None."""
        if not find_spec(MODULE):
            return f"this needs the package {PACKAGE}: {REMEDY}"
        return vela.missing() if options.npu else None

    def cannot_run(self, options: LiteRtOptions) -> str | None:
        """The reason where ai-edge-litert is missing: it runs ``model.tflite``, and nothing here what is compiled for an NPU."""
        return self.cannot_compile(LiteRtOptions())

    def compile(self, bundle: Bundle, destination: Path, options: LiteRtOptions) -> Artifact:
        """Write the bundle's model as LiteRT reads it, every weight in its type, and beside it the same for an NPU.

        Raises:
            RuntimeMissingError: where ai-edge-litert or Vela is not here.
            CompilerError: where the graph has an operator without a translation, or Vela fails.
            UsageError: where the model is too large for the format, serves more than one size, or is not for NPUs.
        """
        quantization = bundle.manifest.quantization
        whole = quantization is not None and quantization.target == LITERT_MICRO.name
        if options.npu:
            _check_npu(bundle, options.npu, whole=whole)
        if bundle.size_bytes >= LIMIT_BYTES:
            raise UsageError(
                f"{bundle.directory} takes {bundle.size_bytes / 1e9:.1f} GB, and a .tflite file can hold {LIMIT_BYTES / 1e9:.1f} GB: "
                "export the checkpoint with --precision fp16"
            )
        with (destination / MODEL).open("wb") as file:
            for part in translate(bundle.artifact.path, whole=whole):
                file.write(part)
        if options.npu is None:
            return Artifact(destination, MODEL, (MODEL,), _settings())
        taken, left = vela.compile_for(options.npu, destination / MODEL, destination / vela.COMPILED)
        settings = _settings(npu=options.npu, vela_version=vela.vela_version())
        figures = {"delegated": taken, "not_delegated": left}
        return Artifact(destination, MODEL, (MODEL, vela.COMPILED), settings, report=figures)

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute."""
        settings = recorded(bundle.artifact, Settings)
        refuse_other_files(bundle, MODEL, *((vela.COMPILED,) if settings.npu else ()))
        artifact_scan.inspect(bundle.artifact.path)
        if settings.npu:
            artifact_scan.inspect_compiled(bundle.directory / vela.COMPILED)

    def open(self, artifact: Artifact) -> LiteRtSession:
        """Load the model, to run on all processors.

        Raises:
            RuntimeMissingError: where ai-edge-litert is not here, or is older than the file.
            BundleError: where it cannot load the file, or the settings are not what ``compile`` records.
        """
        return self.open_with_threads(artifact, None)

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> LiteRtSession:
        """The same, on ``threads`` threads."""
        return LiteRtSession(artifact.path, recorded(artifact, Settings).runtime_version, threads)

    def versions(self) -> Mapping[str, str]:
        """ai-edge-litert has the schema that the file is written by."""
        return {PACKAGE: litert_version()}

    def examples(self, manifest: Manifest) -> Mapping[str, str]:
        """Code for LiteRT in Python."""
        return {
            "python": "from ai_edge_litert.interpreter import Interpreter\n\n"
            f'classify = Interpreter("{manifest.artifact}").get_signature_runner()\n'
            f'print(classify({manifest.input.name}=prepared)["{manifest.output.name}"])'
        }


def _settings(**of_npu: str) -> dict[str, str]:
    return Settings.model_validate({"runtime_version": litert_version(), **of_npu}).model_dump(exclude_none=True)


def _check_npu(bundle: Bundle, npu: str, *, whole: bool) -> None:
    """Refuse a graph that an NPU could not run as a whole, and a machine without Vela."""
    if reason := vela.missing():
        raise RuntimeMissingError(reason)
    if not whole:
        raise UsageError(
            f"--npu {npu} computes with int8 alone, and the graph computes in float, too: export the checkpoint with "
            f"--precision int8 --target {LITERT_MICRO.name} --batch 1"
        )
    if bundle.manifest.batch is None:
        raise UsageError(
            f"--npu {npu} takes one size of inputs, and the graph takes any batch: export the checkpoint with --batch 1"
        )
