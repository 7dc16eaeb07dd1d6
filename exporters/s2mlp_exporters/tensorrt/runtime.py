"""The runtimes, and the GPU at hand.

TensorRT, its lean runtime and TensorRT for RTX are one API under three module names; everything else here takes the module
as a value. cuda-bindings brings the CUDA runtime along, so that the driver is all a machine needs besides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.system.dependencies import missing_modules, pip_install

Module: TypeAlias = Any
"""``tensorrt``, ``tensorrt_lean`` or ``tensorrt_rtx``."""


@dataclass(frozen=True)
class Runtime:
    """One of them: its usual name, its module, the oldest supported release, and how to get one."""

    title: str
    module: str
    oldest: tuple[int, int]
    remedy: str

    @property
    def installed(self) -> bool:
        """Whether its module is there."""
        return not missing_modules((self.module,))

    def load(self) -> Module:
        """The module.

        Raises:
            RuntimeMissingError: where it is not installed, too old, or its libraries cannot be loaded.
        """
        try:
            module = import_module(self.module)
        except (ImportError, OSError, RuntimeError) as error:  # its wheels load libraries while they are imported
            raise RuntimeMissingError(f"{self.title} cannot be loaded ({error}): {self.remedy}") from error
        if release(str(module.__version__)) < self.oldest:
            raise RuntimeMissingError(
                f"{self.title} {module.__version__} is too old, {self.oldest[0]}.{self.oldest[1]} or newer is needed: {self.remedy}"
            )
        return module


TENSORRT = Runtime(
    "TensorRT",
    "tensorrt",
    (10, 3),
    f"on a Jetson it comes with JetPack 6.1 or newer; elsewhere {pip_install('trt')}",
)
TENSORRT_RTX = Runtime(
    "TensorRT for RTX",
    "tensorrt_rtx",
    (1, 2),
    pip_install("trt-rtx"),
)
TENSORRT_LEAN = Runtime("TensorRT's lean runtime", "tensorrt_lean", (10, 3), "pip install tensorrt-lean-cu12, or -cu13")
"""Runs engines that TensorRT built version-compatible, and builds none: 46 MB to download in place of gigabytes."""

AMPERE = (8, 0)


def capabilities(trt: Module) -> tuple[tuple[int, int], ...]:
    """The compute capabilities, as (major, minor), that TensorRT for RTX names, in order. It also runs on all beyond the last."""
    numbers = sorted(int(name[2:]) for name in trt.ComputeCapability.__members__ if name.startswith("SM"))
    return tuple(divmod(number, 10) for number in numbers)


def release(version: str) -> tuple[int, ...]:
    """The first three numbers of a version."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def sm(capability: tuple[int, int]) -> str:
    """A compute capability as NVIDIA's tools write it, as in sm86."""
    return "sm{}{}".format(*capability)


@dataclass(frozen=True)
class Gpu:
    """A GPU: compute capability as (major, minor), memory in bytes."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int

    def __str__(self) -> str:
        return f"{self.name} ({self.sm})"

    @property
    def sm(self) -> str:
        """The compute capability as NVIDIA's tools write it, as in sm86."""
        return sm(self.capability)


class CudaError(Exception):
    """A call of the CUDA runtime failed."""


class Cuda:
    """The CUDA runtime with its errors as exceptions: ``Cuda().StreamCreate()`` is ``cudaStreamCreate``."""

    def __init__(self) -> None:
        try:
            self.runtime: Any = import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise RuntimeMissingError(
                f"running an engine needs cuda-bindings ({error}): pip install cuda-bindings"
            ) from error

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self.runtime, f"cuda{name}")

        def call(*arguments: object) -> Any:
            status, *values = function(*arguments)
            if status != self.runtime.cudaError_t.cudaSuccess:
                _, text = self.runtime.cudaGetErrorString(status)
                raise CudaError(f"cuda{name}: {text.decode() if isinstance(text, bytes) else text}")
            return values[0] if values else None

        return call


def find_gpu() -> Gpu | str:
    """The first GPU, or why there is none, in words."""
    try:
        cuda = Cuda()
        # Zero where there is no driver; the other calls do not distinguish that from one that is too old.
        if not (driver := cuda.DriverGetVersion()):
            return "no NVIDIA driver is installed"
        needed = cuda.runtime.cudaRuntimeGetVersion()[1]
        if driver // 1000 < needed // 1000:
            return (
                f"the NVIDIA driver is too old: it serves CUDA {_version(driver)}, and CUDA {needed // 1000} is needed"
            )
        if not cuda.GetDeviceCount():
            return "no NVIDIA GPU is visible"
        found = cuda.GetDeviceProperties(0)
    except RuntimeMissingError as error:
        return str(error)
    except CudaError as error:
        return f"CUDA does not start ({error})"
    return Gpu(found.name.decode(), (found.major, found.minor), found.totalGlobalMem)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
