"""What can be asked of a builder, and which runtime offers it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2mlp_deploy.errors import DataError, UsageError
from s2mlp_deploy.schema.manifest import Setting
from s2mlp_exporters.tensorrt.runtime import Module

_MIB = 2**20


@dataclass(frozen=True)
class Option:
    """A setting: ``offered_as`` is where a runtime that has it keeps it, ``apply`` sets it."""

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


def _timing_cache(trt: Module, config: Any, file: str) -> None:
    path = Path(file)
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise DataError(f"cannot read the timing cache {file}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):  # known before the build rather than after it
        raise DataError(f"cannot write the timing cache {file}: {path.parent} is no directory that you can write to")
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise DataError(
            f"{file} is no timing cache of this {trt.__name__} {trt.__version__} on this GPU: name a file that does not exist "
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


OPTIONS = {
    "compute_capability": Option("ComputeCapability", _capabilities),
    "hardware_compatible": Option("HardwareCompatibilityLevel.AMPERE_PLUS", _hardware_compatible),
    "opt_level": Option("IBuilderConfig.builder_optimization_level", _opt_level),
    "strip_weights": Option("BuilderFlag.STRIP_PLAN", _flag("STRIP_PLAN")),
    "tf32": Option("BuilderFlag.TF32", _flag("TF32")),
    "timing_cache": Option("IBuilderConfig.create_timing_cache", _timing_cache),
    "version_compatible": Option("BuilderFlag.VERSION_COMPATIBLE", _flag("VERSION_COMPATIBLE")),
    "workspace_mib": Option("MemoryPoolType.WORKSPACE", _workspace),
}
"""By the name of the command line's option.

TensorRT for RTX 1.7 has the attributes of ``opt_level``, ``hardware_compatible``, ``version_compatible`` and
``timing_cache``, too, and ignores them or fails: its exporter does not take these options.
"""


def configure(trt: Module, config: Any, settings: Mapping[str, Setting]) -> None:
    """Set the builder's ``config`` as ``settings`` say; TF32 is off where they do not say otherwise.

    Raises:
        UsageError: where this runtime does not offer what is asked for.
        DataError: for a timing cache that is not its own.
    """
    for name, value in {"tf32": False, **settings}.items():
        if name not in OPTIONS:
            continue  # profiles, which are no options of the builder
        option = OPTIONS[name]
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
