"""Why a model cannot run on an NVIDIA GPU here, in words: before it is loaded, and where the GPU fails meanwhile.

ONNX Runtime only logs that its CUDA provider cannot be loaded. The driver's library and NVML, which is part of the driver, are
called as they are, so that no package is needed to find out.
"""

from __future__ import annotations

import ctypes
import io
import re
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WINDOWS = sys.platform == "win32"
DRIVER, NVML = ("nvcuda.dll", "nvml.dll") if WINDOWS else ("libcuda.so.1", "libnvidia-ml.so.1")
PROVIDER = "onnxruntime_providers_cuda.dll" if WINDOWS else "libonnxruntime_providers_cuda.so"

PACKAGES = {
    "cublas": "nvidia-cublas",
    "cudart": "nvidia-cuda-runtime",
    "cudnn": "nvidia-cudnn-cu{cuda}",
    "cufft": "nvidia-cufft",
    "curand": "nvidia-curand",
    "nvJitLink": "nvidia-nvjitlink",
    "nvrtc": "nvidia-cuda-nvrtc",
}
"""The pip package of each library of CUDA, by the beginning of its name; until CUDA 12 all end in -cuN, as cuDNN's does."""

_MISSING_LIBRARY = re.compile(r"(?:lib)?([A-Za-z]+)[\w.-]*?(?:: cannot open shared object file|.*depends on .*missing)")
_NO_MEMORY = re.compile(
    r"Failed to allocate memory for requested buffer|out of memory|(?:CUBLAS|CUDNN)_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation",
    re.IGNORECASE,
)
_FAILURE = re.compile(r"CUDA (?:failure|error) (\d+):")

BUSY = 46
"""The CUDA error that a GPU gives whose compute mode keeps it to another process."""

LOST = {
    46: "all GPUs are busy or unavailable",
    101: "the GPU is gone",
    214: "an error in the GPU's memory that ECC could not correct",
    220: "a failed link between GPUs",
    700: "an illegal memory access",
    702: "a kernel took too long",
    709: "the GPU's context is gone",
    710: "an assertion in a kernel",
    714: "a hardware stack error",
    715: "an illegal instruction",
    716: "a misaligned address",
    717: "an invalid address space",
    718: "an invalid program counter",
    719: "a kernel failed",
    721: "an error of the GPU that was contained",
    999: "an unknown error",
}
"""CUDA errors after which a process can use the GPU no more."""

_IN_WORDS = {
    46: "device(s) is/are busy or unavailable",
    214: "uncorrectable ECC error",
    700: "an illegal memory access was encountered",
    702: "the launch timed out and was terminated",
    710: "device-side assert triggered",
    715: "an illegal instruction was encountered",
    716: "misaligned address",
    719: "unspecified launch failure",
}
"""CUDA's own words for some of them, which the provider that is a plugin gives without the number."""


@dataclass(frozen=True)
class Memory:
    """Memory of a GPU in bytes, and the number of the other processes that have some of it."""

    free: int
    total: int
    others: int

    def __str__(self) -> str:
        used = {0: "", 1: ", and another process uses it"}.get(
            self.others, f", and {self.others} other processes use it"
        )
        return f"{self.free / 2**30:.1f} GiB of {self.total / 2**30:.1f} are free{used}"


def open_library(name: str) -> Any:
    """The shared library called ``name``.

    Raises:
        OSError: where it, or one that it needs, is not here.
    """
    return ctypes.CDLL(name)


class Driver:
    """NVIDIA's driver, as far as it takes to find out whether a GPU can be used.

    Raises:
        OSError: where there is none.
    """

    def __init__(self) -> None:
        self._cuda = open_library(DRIVER)
        self.status = int(self._cuda.cuInit(0))
        """0 where CUDA starts, else the error's number."""

    @property
    def version(self) -> int:
        """The version of CUDA that the driver serves, as in 12080 for 12.8."""
        return self._number("cuDriverGetVersion")

    @property
    def count(self) -> int:
        """The number of GPUs."""
        return 0 if self.status else self._number("cuDeviceGetCount")

    def name(self, device: int) -> str:
        """The name of the GPU with the number ``device``."""
        text = ctypes.create_string_buffer(100)
        self._cuda.cuDeviceGetName(text, 100, self._number("cuDeviceGet", device))
        return text.value.decode(errors="replace")

    def memory(self, device: int) -> Memory | None:
        """The memory of the GPU with the number ``device``; None where NVML does not give it."""
        identity = (ctypes.c_ubyte * 16)()
        if self._cuda.cuDeviceGetUuid(ctypes.byref(identity), self._number("cuDeviceGet", device)):
            return None
        digits = bytes(identity).hex()
        uuid = "GPU-" + "-".join(digits[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
        with suppress(OSError):
            return _nvml_memory(open_library(NVML), uuid.encode())
        return None

    def _number(self, function: str, *arguments: int) -> int:
        found = ctypes.c_int()
        getattr(self._cuda, function)(ctypes.byref(found), *arguments)
        return found.value


def _nvml_memory(nvml: Any, uuid: bytes) -> Memory | None:
    handle, sizes = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # total, free, used
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
        return None
    try:
        if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(sizes)):
            return None
        count = ctypes.c_uint(0)
        nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle, ctypes.byref(count), None)  # no room: it only counts
        return Memory(sizes[1], sizes[0], max(0, count.value - 1))
    finally:
        nvml.nvmlShutdown()


def obstacle(device: int = 0) -> str | None:
    """Why ONNX Runtime's CUDA provider cannot start on the GPU with the number ``device``; None where nothing is known to be in its way."""
    try:
        driver = Driver()
    except OSError:
        return (
            "no NVIDIA driver is installed here, so nothing runs on CUDA: install it, or run the model on the processor"
        )
    cuda = built_for()
    if cuda and driver.version // 1000 < cuda:
        served = f"{driver.version // 1000}.{driver.version % 1000 // 10}"
        return (
            f"the NVIDIA driver is too old: it serves CUDA {served}, and this onnxruntime is built for CUDA {cuda}. Install a newer driver, "
            f"or a release of onnxruntime-gpu for CUDA {driver.version // 1000}"
        )
    if driver.status or not driver.count:
        return (
            f"the NVIDIA driver finds no GPU (CUDA error {driver.status or 100}): nvidia-smi shows what it sees, and a container needs "
            "--gpus all; CUDA_VISIBLE_DEVICES may hide it"
        )
    if device >= driver.count:
        known = ", ".join(f"{number} {name}" for number, name in enumerate(names()))
        return f"--device {device}: expected the number of a GPU of this machine, of which there are {known}"
    return _library_missing(cuda)


def provider_library() -> Path | None:
    """The library of the CUDA provider that is a part of the installed ONNX Runtime; None where there is none, or a plugin. Imports nothing."""
    found = find_spec("onnxruntime")
    provider = Path(found.origin).parent / "capi" / PROVIDER if found and found.origin else None
    return provider if provider and provider.exists() else None


def names() -> tuple[str, ...]:
    """The names of the GPUs that the driver finds, in the order of their numbers."""
    try:
        driver = Driver()
    except OSError:
        return ()
    return tuple(driver.name(number) for number in range(driver.count))


def built_for() -> int | None:
    """The major version of CUDA that the installed ONNX Runtime is built for; None where it names none."""
    package = import_module("onnxruntime.capi.build_and_package_info")
    found = re.match(r"\d+", getattr(package, "cuda_version", ""))
    return int(found[0]) if found else None


def _library_missing(cuda: int | None) -> str | None:
    """The library without which the CUDA provider cannot be loaded, and the package that brings it; None where all are here."""
    provider = provider_library()
    if provider is None:
        return None
    _load_packaged_libraries()
    try:
        open_library(str(provider))
    except OSError as error:
        if not (
            found := _MISSING_LIBRARY.search(str(error))
        ):  # it wants symbols of ONNX Runtime, so its libraries are here
            return None
        library = str(error).split(":")[0]
        return (
            f"ONNX Runtime's CUDA provider needs {library}, which is not here: {_way_to(found[1], cuda)}, or for all that it needs, "
            "pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    return None


def _way_to(library: str, cuda: int | None) -> str:
    package = next((p for name, p in PACKAGES.items() if library.startswith(name)), None)
    if package is None:
        return (
            f"install the package of your system that has it for CUDA {cuda}"
            if cuda
            else "install the package that has it"
        )
    suffix = f"-cu{cuda}" if cuda and cuda < 13 and "{cuda}" not in package else ""
    return f"pip install {package.format(cuda=cuda)}{suffix}"


@cache
def _load_packaged_libraries() -> None:
    """Load CUDA's libraries from NVIDIA's pip packages, where the system's loader does not look."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on
        with redirect_stdout(io.StringIO()):  # it prints each that is not there
            onnxruntime.preload_dlls()


def name_of(device: int) -> str | None:
    """The name of the GPU with the number ``device``; None where the driver does not give it."""
    found = names()
    return found[device] if device < len(found) else None


def explain(error: str, device: int, shape: tuple[int, ...] | None) -> str | None:
    """An ``error`` of ONNX Runtime, from inputs of ``shape``, as a failure of the GPU in words; None where it is none of the GPU's."""
    if _NO_MEMORY.search(error):
        return _no_memory(device, shape)
    failure = _FAILURE.search(error)
    number = int(failure[1]) if failure else next((n for n, words in _IN_WORDS.items() if words in error), None)
    if number not in LOST:
        return None
    if number == BUSY:
        return (
            f"GPU {device} is busy or unavailable (CUDA error {BUSY}): another process may keep it to itself, which nvidia-smi shows as compute "
            "mode Exclusive. End that process, or take another with --device"
        )
    return (
        f"GPU {device} failed while it ran the model (CUDA error {number}: {LOST[number]}), and this process cannot use it any more: run "
        "again, and look for lines with Xid in the kernel's log (dmesg), which say whether the hardware is at fault"
    )


def _no_memory(device: int, shape: tuple[int, ...] | None) -> str:
    memory = None
    with suppress(OSError):
        memory = Driver().memory(device)
    state = f" ({memory})" if memory else ""
    if shape:
        task, remedy = f"a batch of {shape[0]}", "give a smaller --batch"
    else:
        task, remedy = "this model", "export it with --precision fp16"
    others = " End the other processes, or t" if memory and memory.others else " T"
    return f"GPU {device} has too little free memory for {task}{state}: {remedy}.{others}ake another GPU with --device"
