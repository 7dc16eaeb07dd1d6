"""The machine of a measurement, in enough words to repeat it. A figure that cannot be read is unknown, never zero."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from s2mlp_deploy.system import machine
from s2mlp_deploy.system.version import __version__

UNKNOWN = "unknown"

FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "sve",
)
"""Of the processor's instruction sets, those that decide how fast products are."""


def describe() -> dict[str, object]:
    """Processor and its features, cores that this process may use, clock policy, load, and versions."""
    return {
        **machine.describe(),
        "usable_cores": usable_cores(),
        "features": _features(),
        "governor": _governor(),
        "load_average": _load(),
        "versions": {"s2mlp-deploy": __version__, **machine.installed()},
    }


def usable_cores() -> int:
    """Cores that this process may use, or all where the system does not report them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _features() -> list[str] | str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                found = set(line.split(":", 1)[1].split())
                return [name for name in FEATURES if name in found]
    return UNKNOWN


def _governor() -> str:
    with suppress(OSError):
        found = {p.read_text().strip() for p in Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")}
        if found:
            return ", ".join(sorted(found))
    return UNKNOWN


def _load() -> float | str:
    with suppress(OSError, AttributeError):
        return round(os.getloadavg()[0], 2)
    return UNKNOWN
