"""The options of engines, and how each is set on a builder that has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

from s2mlp_deploy.errors import DataError, UsageError
from s2mlp_deploy.formats.options import CommaSeparated, Metavar, Options
from s2mlp_exporters.tensorrt.runtime import Module

_MIB = 2**20


class EngineOptions(Options):
    """The options that engines of both runtimes have."""

    batch: Annotated[
        str | None, Metavar("MIN:OPT:MAX"), Field(description="Batch sizes, where the graph takes any; else 1:1:8.")
    ] = None
    size_profile: Annotated[
        str | None, Metavar("MIN:OPT:MAX"), Field(description="With --dynamic-size: image sizes, each N or HxW.")
    ] = None
    workspace_mib: Annotated[
        int | None, Metavar("N"), Field(ge=1, description="Memory that a layer's kernels may use, in MiB.")
    ] = None
    strip_weights: Annotated[bool, Field(description="Leave the weights to the ONNX file in the bundle.")] = False
    tf32: Annotated[bool, Field(description="Round float32 products to TF32.")] = False


def _beside_version_compatible(wanted: bool, others: ValidationInfo) -> bool:
    if wanted and not others.data.get("version_compatible"):
        raise ValueError("expected --version-compatible, too: other engines have no runtime to leave out")
    return wanted


class TensorRtOptions(EngineOptions):
    """The options of TensorRT's engines."""

    opt_level: Annotated[
        int | None, Metavar("N"), Field(ge=0, le=5, description="How long to look for fast kernels, 0 to 5.")
    ] = None
    timing_cache: Annotated[Path | None, Metavar("FILE"), Field(description="Kernel timings, read and kept.")] = None
    version_compatible: Annotated[bool, Field(description="Run on later releases and the lean runtime, too.")] = False
    exclude_lean_runtime: Annotated[
        bool,
        AfterValidator(_beside_version_compatible),
        Field(description="With --version-compatible: a smaller engine, for devices that have tensorrt-lean."),
    ] = False
    hardware_compatible: Annotated[bool, Field(description="Run on all GPUs from Ampere on.")] = False


def _lowered(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return names and tuple(name.lower() for name in names)


class TensorRtRtxOptions(EngineOptions):
    """The options of engines of TensorRT for RTX."""

    compute_capability: Annotated[
        tuple[str, ...] | None,
        CommaSeparated,
        AfterValidator(_lowered),
        Metavar("SM,SM"),
        Field(description="GPUs to build for, as in sm86,sm89; else all that the runtime knows from Ampere on."),
    ] = None


OPTIONS = {"trt": TensorRtOptions, "trt-rtx": TensorRtRtxOptions}


@dataclass(frozen=True)
class Setter:
    """How an option is set: ``offered_as`` is the attribute of a runtime that has it, ``apply`` sets it."""

    offered_as: str
    apply: Callable[[Module, Any, Any], None]


def _workspace(trt: Module, config: Any, mib: int) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, mib * _MIB)


def _opt_level(trt: Module, config: Any, level: int) -> None:
    config.builder_optimization_level = level
    if (taken := config.builder_optimization_level) != level:
        raise UsageError(f"--opt-level {level}: {trt.__name__} {trt.__version__} makes that {taken}; give 0 to 5")


def _flag(name: str) -> Callable[[Module, Any, Any], None]:
    def apply(trt: Module, config: Any, wanted: bool) -> None:
        change = config.set_flag if wanted else config.clear_flag
        change(getattr(trt.BuilderFlag, name))

    return apply


def _hardware_compatible(trt: Module, config: Any, wanted: bool) -> None:
    level = trt.HardwareCompatibilityLevel
    config.hardware_compatibility_level = level.AMPERE_PLUS if wanted else level.NONE


def _timing_cache(trt: Module, config: Any, path: Path) -> None:
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise DataError(f"cannot read the timing cache {path}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):  # known before the build rather than after it
        raise DataError(f"cannot write the timing cache {path}: {path.parent} is no directory that you can write to")
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise DataError(
            f"{path} is no timing cache of this {trt.__name__} {trt.__version__} on this GPU: name a file that does not exist "
            "yet, and it will be written"
        )


def _capabilities(trt: Module, config: Any, names: tuple[str, ...]) -> None:
    known = {n.lower(): c for n, c in trt.ComputeCapability.__members__.items() if n.startswith("SM")}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"--compute-capability {','.join(unknown)}: {trt.__name__} {trt.__version__} builds for {', '.join(known)}"
        )
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(sorted(names, key=lambda n: int(n[2:]))):
        config.set_compute_capability(known[name], index)


SETTERS = {
    "compute_capability": Setter("ComputeCapability", _capabilities),
    "exclude_lean_runtime": Setter("BuilderFlag.EXCLUDE_LEAN_RUNTIME", _flag("EXCLUDE_LEAN_RUNTIME")),
    "hardware_compatible": Setter("HardwareCompatibilityLevel.AMPERE_PLUS", _hardware_compatible),
    "opt_level": Setter("IBuilderConfig.builder_optimization_level", _opt_level),
    "strip_weights": Setter("BuilderFlag.STRIP_PLAN", _flag("STRIP_PLAN")),
    "tf32": Setter("BuilderFlag.TF32", _flag("TF32")),
    "timing_cache": Setter("IBuilderConfig.create_timing_cache", _timing_cache),
    "version_compatible": Setter("BuilderFlag.VERSION_COMPATIBLE", _flag("VERSION_COMPATIBLE")),
    "workspace_mib": Setter("MemoryPoolType.WORKSPACE", _workspace),
}
"""By the name of the command line's option.

TensorRT for RTX 1.7 has the attributes of ``opt_level``, ``hardware_compatible``, ``version_compatible`` and
``timing_cache``, too, and ignores them or fails: its exporter does not take these options.
"""


def configure(trt: Module, config: Any, given: Mapping[str, Any]) -> None:
    """Set the options ``given``, by name, on the builder's ``config``; TF32 is off unless it is among them.

    Raises:
        UsageError: where this runtime does not have an option.
        DataError: for a timing cache that is not its own.
    """
    for name, value in {"tf32": False, **given}.items():
        if name not in SETTERS:
            continue  # profiles, which are no options of the builder
        option = SETTERS[name]
        if not offers(trt, option.offered_as):
            if value is False:
                continue  # what it does not have is off
            raise UsageError(
                f"--{name.replace('_', '-')}: {trt.__name__} {trt.__version__} does not have it; leave it out"
            )
        option.apply(trt, config, value)


def offers(trt: Module, path: str) -> bool:
    """Whether the runtime has what is called ``path`` in its Python API."""
    found = trt
    for name in path.split("."):
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True
