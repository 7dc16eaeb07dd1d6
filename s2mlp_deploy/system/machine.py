"""Describe this machine (processor, cores, system, packages) for reports and for ``s2mlp-doctor``."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "torch",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxsim",
    "tensorrt",
    "tensorrt-rtx-cu12",
    "openvino",
    "ai-edge-litert",
    "executorch",
    "coremltools",
    "numpy",
    "safetensors",
    "pillow",
)


def describe() -> dict[str, str | int]:
    """Processor, cores and system."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def installed(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """The versions of those ``packages`` that are installed."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def usable_cores() -> int:
    """Cores that this process may use, or all where the system does not report them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def features() -> frozenset[str]:
    """Instruction sets that change speed or rounding, by Linux's names (``amx_int8``); empty where unknown."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(name: str) -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(name):
                return line.split(":", 1)[1].strip()
    return ""
