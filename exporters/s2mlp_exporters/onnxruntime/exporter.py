"""``--format ort``: a model that ONNX Runtime has optimized ahead of time, with the settings to load it.

``--ort-style ort`` writes the format for phones and minimal builds, which holds the optimized graph and
needs no ONNX parser, and the list of operators that such a build must have; ``onnx`` writes the
optimized graph as an ONNX file, whose weights lie beside it where the bundle's do.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator

from s2mlp_deploy.bundle.contents import Artifact, Bundle
from s2mlp_deploy.errors import RuntimeMissingError, UsageError
from s2mlp_deploy.formats import onnx_scan
from s2mlp_deploy.formats.base import Compiler, refuse_other_files
from s2mlp_deploy.formats.onnx import onnxruntime_examples
from s2mlp_deploy.formats.settings import recorded
from s2mlp_deploy.runtime import cuda_diagnosis, onnxruntime_versions
from s2mlp_deploy.runtime.onnxruntime import REMEDY, Loading, OnnxSession, load, missing
from s2mlp_deploy.runtime.opening import open_session, placed
from s2mlp_deploy.runtime.providers import ON_GPU, Provider
from s2mlp_deploy.runtime.session import Placement
from s2mlp_deploy.schema.manifest import Manifest
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.precision import CUDA, ON_CPUS, precision
from s2mlp_deploy.schema.strict_model import StrictModel
from s2mlp_deploy.system.dependencies import distributions
from s2mlp_exporters.onnxruntime import artifact_scan, canonical
from s2mlp_exporters.onnxruntime.options import OrtOptions, Style

OPERATORS = "required_operators.config"

LIMIT_BYTES = 2**31
"""An ``.ort`` file is a FlatBuffer, which can be no larger; ONNX Runtime does not stop there, but crashes."""

_DATA_FILE = "session.optimized_model_external_initializers_file_name"

COMPILING = ("coreml", "openvino", "qnn", "tensorrt", "tensorrt-rtx", "webgpu")
"""Providers that compile or rearrange the graph themselves when it is loaded: nothing of theirs can be saved ahead of time."""

SESSION_OPTIONS: Mapping[str, str] = {}
"""ONNX Runtime's session configuration entries that make this model faster (docs/benchmarks/latency.md)."""


def _known(entry: str) -> str:
    """Some entries name files that ONNX Runtime reads, or writes: none is passed on but those that this project gives."""
    if entry not in {f"{key}={value}" for key, value in SESSION_OPTIONS.items()}:
        raise ValueError("expected an entry that this project gives")
    return entry


class Settings(StrictModel):
    """The settings that the manifest records of a model that ONNX Runtime optimized."""

    runtime: Literal["onnxruntime"] = "onnxruntime"
    runtime_version: str
    provider: Provider
    style: Style
    optimization: Literal["basic", "extended"]
    session_options: tuple[Annotated[str, AfterValidator(_known)], ...] = ()
    tf32: bool = False

    def loading(self) -> Loading:
        """How to load the model, which is optimized already."""
        config = dict(entry.split("=", 1) for entry in self.session_options)
        return Loading(self.provider, "none", config, tf32=self.tf32)

    def recorded(self) -> dict[str, Any]:
        """The settings as the manifest has them: TF32 where it is on."""
        return self.model_dump(exclude=None if self.tf32 else {"tf32"})


class OrtModel(Compiler):
    """Writes ``model.ort`` (or an optimized ``model.onnx``) and runs it."""

    name = "ort"
    precisions = ON_CPUS
    options = OrtOptions
    targets = (*Compiler.targets, CUDA.name)
    calibrated_targets = Compiler.targets
    inputs = ("float", "uint8", "image")
    outputs = ("logits", "probabilities", "top5")
    networks = True
    modules = ("onnxruntime",)
    install_hint = REMEDY

    def cannot_compile(self, options: OrtOptions) -> str | None:
        """The reason where onnxruntime, the provider or the GPU is missing or too old; else None."""
        return _missing(options.provider) or (cuda_diagnosis.obstacle(options.device) if options.device else None)

    def cannot_run(self, options: OrtOptions) -> str | None:
        """The same reasons: where a model is optimized it also runs."""
        return self.cannot_compile(options)

    def variants(self) -> tuple[Mapping[str, Any], ...]:
        """One for each execution provider of this onnxruntime, the CPU's first."""
        others = [name for name in get_args(Provider) if name != "cpu" and not _missing(name)]
        return ({}, *({"provider": name} for name in others))

    def compile(self, bundle: Bundle, destination: Path, options: OrtOptions) -> Artifact:
        """Optimize the bundle's model for ``provider`` and write it in the format ``ort_style``.

        Raises:
            UsageError: for a model that is too large for an ``.ort`` file.
            RuntimeMissingError: where the provider is not here or cannot run the whole model, or where this
                onnxruntime writes files that are not known.
        """
        provider, style = options.provider, options.ort_style
        chosen = Settings(
            runtime_version=_version(),
            provider=provider,
            style=style,
            optimization="basic" if provider in COMPILING else "extended",
            session_options=tuple(f"{key}={value}" for key, value in SESSION_OPTIONS.items()),
            tf32=options.tf32,
        )
        if style == "ort" and bundle.size_bytes >= LIMIT_BYTES:
            raise UsageError(
                f"{bundle.directory} takes {bundle.size_bytes / 1e9:.1f} GB, and an .ort file can hold {LIMIT_BYTES / 1e9:.1f} GB: "
                "give --ort-style onnx, or use --precision fp16 or int8"
            )
        with TemporaryDirectory(dir=destination, prefix=".") as place:
            main = f"model.{style}"
            made, saved_as = Path(place) / main, {"session.save_model_format": style.upper()}
            beside = (f"{main}.data",) if style == "onnx" and len(bundle.artifact.files) > 1 else ()
            if beside:
                saved_as[_DATA_FILE] = beside[0]
            optimizer = "cpu" if provider in COMPILING else provider
            # float16 weights that are widened here would be saved as float32, in a file of twice the size.
            manifest = bundle.manifest
            widens = precision(manifest.precision).read(manifest.arithmetic).widens_weights
            without = ("ConstantFolding",) if widens else ()
            load(
                bundle.artifact.path,
                Loading(
                    optimizer, chosen.optimization, saved_as, save_to=made, without=without, device=options.device or 0
                ),
            )
            if style == "onnx":
                for name in (main, *beside):
                    (made.parent / name).rename(destination / name)
                return Artifact(destination, main, (main, *beside), chosen.recorded())
            try:
                canonical.write(made, destination / main)
            except ValueError as error:
                raise RuntimeMissingError(
                    f"onnxruntime {chosen.runtime_version} writes .ort files that this release does not know ({error}): "
                    "install another version, or give --ort-style onnx"
                ) from error
        _write_operators(destination)
        return Artifact(destination, main, (main, OPERATORS), chosen.recorded())

    def placement(self, options: OrtOptions) -> Placement:
        """The GPU, by its number."""
        return Placement(device=options.device)

    def for_gpu(self, options: OrtOptions) -> bool:
        """Whether the provider runs on a GPU."""
        return options.provider in ON_GPU

    def on_gpu(self, artifact: Artifact) -> bool:
        """Whether the recorded provider runs on a GPU."""
        return artifact.settings.get("provider") in ON_GPU

    def inspect(self, bundle: Bundle) -> None:
        """Refuse an artifact that is not one of this format, or could do more than compute."""
        settings = recorded(bundle.artifact, Settings)
        refuse_other_files(bundle, f"model.{settings.style}")
        if reason := _missing("cpu"):
            raise RuntimeMissingError(reason)
        if settings.style == "ort":
            other = isinstance(bundle.manifest.spec, OnnxNetwork)
            artifact_scan.inspect(bundle.artifact.path, onnx_scan.LOOPS if other else frozenset())
        else:
            onnx_scan.inspect(bundle, bundle.manifest.artifact, onnx_scan.OPTIMIZED, within=onnx_scan.LOOPS)

    def open(self, artifact: Artifact) -> OnnxSession:
        """Load the model for the provider that it was made for.

        Raises:
            RuntimeMissingError: where onnxruntime or that provider is not here.
            BundleError: where ONNX Runtime cannot load the file, or the settings are not what ``compile`` records.
        """
        return open_session(artifact.path, recorded(artifact, Settings).loading())

    def examples(self, manifest: Manifest) -> Mapping[str, str]:
        """Code for ONNX Runtime, which reads these files as it reads ONNX."""
        return onnxruntime_examples(manifest)

    def open_with_threads(self, artifact: Artifact, threads: int | None) -> OnnxSession:
        """The same, on ``threads`` threads that rest between runs."""
        return self.open_on(artifact, Placement(threads=threads))

    def open_on(self, artifact: Artifact, placement: Placement) -> OnnxSession:
        """Load the model for the provider that it was made for, on a GPU of its own.

        Raises:
            UsageError: for another provider: the file holds what the optimizer of its own made of the graph.
        """
        settings = recorded(artifact, Settings)
        if placement.provider not in (None, settings.provider):
            raise UsageError(
                f"--provider {placement.provider}: {artifact.directory} was optimized for {settings.provider}, with operators that others may "
                "not have: give the ONNX bundle that it was made from"
            )
        return open_session(artifact.path, placed(settings.loading(), placement))

    def versions(self) -> Mapping[str, str]:
        """onnxruntime optimizes the graph and writes the file."""
        return {_distribution(): _version()}


def _missing(provider: str) -> str | None:
    """The package or provider that is missing to make and run these files, in words; None where none is."""
    return missing(provider) or onnxruntime_versions.too_old("engines")


def _write_operators(directory: Path) -> None:
    """The operators and types that a minimal build of ONNX Runtime must have to run ``model.ort``."""
    from onnxruntime.tools.ort_format_model import create_config_from_models

    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
    model, config = directory / "model.ort", directory / OPERATORS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it opens the file and does not close it
        create_config_from_models([model], config, True)
    config.write_text(config.read_text("utf-8").replace(str(model), model.name), "utf-8")


def _distribution() -> str:
    """The package that onnxruntime was installed by: there are several, for different devices."""
    return next(iter(distributions("onnxruntime")), "onnxruntime")


def _version() -> str:
    try:
        return version(_distribution())
    except PackageNotFoundError as error:
        raise RuntimeMissingError(f"--format ort needs onnxruntime: {REMEDY}") from error
