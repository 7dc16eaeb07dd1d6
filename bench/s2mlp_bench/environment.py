"""The machine of a measurement, in enough words to repeat it. A figure that cannot be read is unknown, never zero."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from s2mlp_deploy.errors import UsageError
from s2mlp_deploy.runtime import cuda_diagnosis
from s2mlp_deploy.system import machine
from s2mlp_deploy.system.version import __version__
from s2mlp_deploy.system.wording import counted

UNKNOWN = "unknown"

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable that lists the GPUs which CUDA sees, by number or name; the first of them has the number 0."""

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
    """Processor and its features, cores that this process may use, clock policy, load, GPUs that CUDA sees, and versions."""
    return {
        **machine.describe(),
        "usable_cores": machine.usable_cores(),
        "features": _features(),
        "governor": _governor(),
        "load_average": _load(),
        **({"gpus": list(gpus)} if (gpus := cuda_diagnosis.names()) else {}),
        "versions": {"s2mlp-deploy": __version__, **machine.installed()},
    }


def use_gpu(number: int) -> None:
    """Show CUDA the GPU with the ``number`` alone, in this process and those that it starts; PyTorch and TensorRT run there, too.

    CUDA reads the variable when it starts, so this comes first.

    Raises:
        UsageError: where the variable shows fewer already.
    """
    visible = os.environ.get(VISIBLE, "")
    shown = [name for name in visible.split(",") if name]
    if shown and number >= len(shown):
        raise UsageError(f"--device {number}: {VISIBLE}={visible} shows {counted(len(shown), 'GPU')}, numbered from 0")
    os.environ[VISIBLE] = shown[number] if shown else str(number)


def _features() -> list[str] | str:
    found = machine.features()
    return [name for name in FEATURES if name in found] if found else UNKNOWN


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
