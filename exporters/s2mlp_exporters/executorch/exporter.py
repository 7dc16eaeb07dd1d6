"""``--format executorch``: ExecuTorch's own file, ``model.pte``, for phones and small boards, run on the processor by XNNPACK.

The file is made from the graph of the ONNX bundle: that becomes a PyTorch module, which torch.export takes. Making it
needs torch; a device's app needs neither torch nor Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.errors import BundleError, CompilerError, UsageError
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.schema.precision import LITERT, QUANTIZED_AT_RUNTIME
from s2mlp_exporters.executorch import artifact_scan
from s2mlp_exporters.executorch.lower import lower
from s2mlp_exporters.executorch.options import ExecuTorchOptions
from s2mlp_exporters.executorch.packages import MODULE, PACKAGE, REMEDY, executorch_version, missing
from s2mlp_exporters.executorch.session import ExecuTorchSession
from s2mlp_exporters.executorch.settings import Settings

MODEL = "model.pte"

DEFAULT_BATCH = 8

LIMIT_BYTES = 2**31
"""A program with its tables is a FlatBuffer; weights beyond this were not tried."""


class ExecuTorchProgram(Compiler):
    """Writes ``model.pte`` and runs it."""

    name = "executorch"
    precisions = ("fp32", "int8", *QUANTIZED_AT_RUNTIME)
    options = ExecuTorchOptions
    targets = ("arm", "x86")
    calibrated_targets = (LITERT.name,)
    inputs = ("float", "uint8")
    outputs = ("logits", "probabilities")
    modules = (MODULE,)
    install_hint = REMEDY

    def cannot_compile(self, options: ExecuTorchOptions) -> str | None:
        """The reason where ExecuTorch or torch is missing; else None."""
        return missing()

    def cannot_run(self, options: ExecuTorchOptions) -> str | None:
        """The same reason: where a program is made it also runs."""
        return missing()

    def compile(self, bundle: Bundle, destination: Path, options: ExecuTorchOptions) -> Artifact:
        """Write the bundle's model as ExecuTorch runs it.

        Raises:
            RuntimeMissingError: where ExecuTorch is not here.
            CompilerError: where the graph has an operator without a translation, or ExecuTorch does not take it.
            UsageError: where the model is too large for the format, or serves more than one size, or has a fixed batch
                beside ``--max-batch``.
        """
        fixed = bundle.manifest.batch
        if fixed and options.max_batch is not None:
            raise UsageError(
                f"--max-batch {options.max_batch}: the bundle's graph has a fixed batch of {fixed}; export it with --batch dynamic"
            )
        if bundle.size_bytes >= LIMIT_BYTES:
            raise UsageError(
                f"{bundle.directory} takes {bundle.size_bytes / 1e9:.1f} GB, and --format executorch takes up to "
                f"{LIMIT_BYTES / 1e9:.1f} GB: export for another --format"
            )
        largest = None if fixed else options.max_batch or DEFAULT_BATCH
        program = lower(bundle.artifact.path, largest or 1)
        program.write(destination / MODEL)
        try:
            artifact_scan.inspect(destination / MODEL)
        except BundleError as error:  # an operator that nobody has looked at, or another form in another version
            raise CompilerError(
                f"ExecuTorch {executorch_version()} wrote a program that would be refused when it is loaded ({error.__cause__}): install "
                "another version, or export for another --format"
            ) from error
        settings = Settings.model_validate(
            {"runtime_version": executorch_version(), "output": program.output, "max_batch": largest}
        )
        known = settings.model_dump(exclude_none=True)
        return Artifact(destination, MODEL, (MODEL,), known, report={"not_delegated": dict(program.outside)})

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute."""
        recorded(bundle.artifact, Settings)
        refuse_other_files(bundle, MODEL)
        artifact_scan.inspect(bundle.artifact.path)

    def open(self, artifact: Artifact) -> ExecuTorchSession:
        """Load the program, to run on as many threads as the runtime chooses.

        Raises:
            RuntimeMissingError: where ExecuTorch or torch is not here.
            BundleError: where it cannot load the file, or the settings are not what ``compile`` records.
        """
        return self.open_with_threads(artifact, None)

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> ExecuTorchSession:
        """The same, on ``threads`` threads."""
        return ExecuTorchSession(artifact.path, recorded(artifact, Settings), threads)

    def versions(self) -> Mapping[str, str]:
        """ExecuTorch and torch decide the bytes."""
        from importlib.metadata import version

        return {PACKAGE: executorch_version(), "torch": version("torch")}
