"""``--format executorch``: ExecuTorch's own file, ``model.pte``, for phones and small boards, run on the processor by XNNPACK.

The file is made from the graph of the ONNX bundle: that becomes a PyTorch module, which torch.export takes. Making it
needs torch; a device's app needs neither torch nor Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from s2mlp_deploy.bundle import golden_tensors
from s2mlp_deploy.bundle.contents import GOLDEN, Artifact, Bundle
from s2mlp_deploy.bundle.golden_tensors import Golden
from s2mlp_deploy.errors import BundleError, CompilerError, UsageError
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.precision import LITERT, QUANTIZED_AT_RUNTIME
from s2mlp_exporters.executorch import artifact_scan, bundled_program
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
        if options.bundled_program and not (bundle.manifest.tolerance and GOLDEN in bundle.manifest.files):
            raise UsageError(
                f"--bundled-program: {bundle.directory} was exported with --no-gate or synthetic calibration and holds no golden "
                "tensors: leave it out, or export the checkpoint again"
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
        report: dict[str, Any] = {"not_delegated": dict(program.outside)}
        if not options.bundled_program:
            return Artifact(destination, MODEL, (MODEL,), known, report=report)
        figures = _write_bundled_program(bundle, settings, destination)
        return Artifact(destination, MODEL, (MODEL, bundled_program.FILE), known, report=report | figures)

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute."""
        settings = recorded(bundle.artifact, Settings)
        refuse_other_files(bundle, MODEL)
        artifact_scan.inspect(bundle.artifact.path)
        if bundled_program.FILE in bundle.artifact.files:
            _check_bundled_program(bundle, settings)

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


def _write_bundled_program(bundle: Bundle, settings: Settings, destination: Path) -> dict[str, float]:
    """Write ``model.bpte`` beside ``model.pte``, and return the tolerance that a runner is to compare with."""
    golden, tolerance = golden_tensors.load(bundle.golden), bundle.manifest.tolerance
    assert tolerance is not None
    content = _bundled(golden, bundle.manifest, settings, destination / MODEL)
    (destination / bundled_program.FILE).write_bytes(content)
    return {"bundleio_atol": bundled_program.absolute_tolerance(golden, tolerance.relative_l2)}


def _check_bundled_program(bundle: Bundle, settings: Settings) -> None:
    """Refuse a ``model.bpte`` that is not the program with the golden tensors beside it."""
    path = bundle.directory / bundled_program.FILE
    expected = _bundled(golden_tensors.load(bundle.golden), bundle.manifest, settings, bundle.artifact.path)
    if path.read_bytes() != expected:
        raise BundleError(
            f"{path} is not {MODEL} with the golden tensors beside it: the bundle was changed; copy it again"
        )


def _bundled(golden: Golden, manifest: Manifest, settings: Settings, model: Path) -> memoryview:
    """The content of ``model.bpte`` for the program in the file ``model``."""
    cases = bundled_program.test_cases(golden, settings.output, batch=manifest.batch, largest=settings.max_batch or 1)
    return bundled_program.bundled(np.fromfile(model, np.uint8), cases)
