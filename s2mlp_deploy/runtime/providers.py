"""ONNX Runtime's execution providers by name, and which of them this machine has.

A provider is built into ONNX Runtime, or it is a plugin: a package of its own whose library ONNX Runtime loads when it is
registered. A plugin may load and still offer no device, which ONNX Runtime counts as no error.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.runtime import cuda_diagnosis, onnxruntime_versions

if TYPE_CHECKING:
    import onnxruntime

Provider: TypeAlias = Literal[
    "cpu", "coreml", "cuda", "directml", "openvino", "qnn", "tensorrt", "tensorrt-rtx", "webgpu", "xnnpack"
]

PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""ONNX Runtime's names of its execution providers, by the name that ``--provider`` takes."""

ON_GPU = ("cuda", "directml", "tensorrt", "tensorrt-rtx", "webgpu")
"""Providers that run on GPUs."""


@dataclass(frozen=True)
class Plugin:
    """A provider that comes as a package of its own: its Python module, the devices it runs on, and the packages that bring it.

    The first package is the one to install, where PyPI has it.
    """

    module: str
    devices: str
    packages: tuple[str, ...]
    at_pypi: bool = True

    def __str__(self) -> str:
        """The installed package with its version."""
        for package in self.packages:
            with suppress(PackageNotFoundError):
                return f"{package} {version(package)}"
        return self.module


_RTX = "onnxruntime-ep-nv-tensorrt-rtx"

PLUGINS: dict[str, Plugin] = {
    "cuda": Plugin(
        "onnxruntime_ep_cuda",
        "an NVIDIA GPU and its driver",
        ("onnxruntime-ep-cuda13", "onnxruntime-ep-cuda12"),
        at_pypi=False,
    ),
    "openvino": Plugin("onnxruntime_ep_openvino", "an Intel processor, GPU or NPU", ("onnxruntime-ep-openvino",)),
    "qnn": Plugin("onnxruntime_qnn", "a Qualcomm processor with an NPU", ("onnxruntime-qnn",)),
    "tensorrt-rtx": Plugin(
        "onnxruntime_ep_nv_tensorrt_rtx",
        "an NVIDIA RTX GPU, Ampere or later, and its driver",
        (f"{_RTX}-cu13", f"{_RTX}-cu12"),
    ),
    "webgpu": Plugin(
        "onnxruntime_ep_webgpu", "a GPU with a Vulkan, Metal or Direct3D 12 driver", ("onnxruntime-ep-webgpu",)
    ),
}
"""Plugins by the name of the provider that they bring."""

LIBRARIES = {
    "libcuda.so": "NVIDIA's driver",
    **{
        f"lib{name}": f"the package {package.partition('-cu{')[0]}" for name, package in cuda_diagnosis.PACKAGES.items()
    },
    "libnvinfer": "TensorRT",
    "libtensorrt_rtx": "TensorRT for RTX",
    "libvulkan.so": "a Vulkan driver (Debian: mesa-vulkan-drivers)",
}
"""The origin of shared libraries that providers need, by the beginning of the file's name."""


@dataclass(frozen=True)
class Device:
    """A device that a plugin offers: CPU, GPU or NPU, and its maker."""

    kind: str
    vendor: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.vendor})" if self.vendor else self.kind


def is_built_in(provider: str) -> bool:
    """Whether this build of ONNX Runtime has ``provider`` without a plugin."""
    import onnxruntime

    return PROVIDERS[provider] in onnxruntime.get_available_providers()


def is_plugin(provider: str) -> bool:
    """Whether ``provider`` is one of the plugins that are installed here, and not built in."""
    return provider in PLUGINS and find_spec(PLUGINS[provider].module) is not None and not is_built_in(provider)


def missing(provider: str) -> str | None:
    """The reason why ``provider`` cannot run models here; None where it can. ONNX Runtime is installed."""
    if provider == "cpu" or is_built_in(provider):
        return cuda_diagnosis.obstacle() if provider == "cuda" else None
    if not is_plugin(provider):
        return _absent(provider)
    try:
        devices = plugin_devices(provider)
    except RuntimeMissingError as error:
        return str(error)
    if devices:
        return None
    return (
        f"{PLUGINS[provider]} is registered with ONNX Runtime and offers no device on this machine: it runs on "
        f"{PLUGINS[provider].devices}. Use a machine that has one, or export for another --provider"
    )


def plugin_devices(provider: str) -> tuple[onnxruntime.OrtEpDevice, ...]:
    """The devices that the plugin for ``provider`` offers here, in ONNX Runtime's order; it is registered the first time.

    Raises:
        RuntimeMissingError: where its library cannot be loaded, naming the library that is missing.
    """
    import onnxruntime

    _register(provider)
    return tuple(device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDERS[provider])


def described(devices: tuple[onnxruntime.OrtEpDevice, ...]) -> tuple[Device, ...]:
    """``devices`` in words."""
    return tuple(Device(one.device.type.name, one.device.vendor) for one in devices)


@cache
def _register(provider: str) -> None:
    """Load the plugin's library into ONNX Runtime, which keeps it until the process ends."""
    import onnxruntime

    plugin = PLUGINS[provider]
    if reason := onnxruntime_versions.too_old("plugins"):
        raise RuntimeMissingError(reason)
    try:
        library = import_module(plugin.module).get_library_path()
        _load_cuda_runtime_beside(Path(library))
        onnxruntime.register_execution_provider_library(PROVIDERS[provider], library)
    except Exception as error:  # onnxruntime's exceptions have no common base
        if "already registered" in str(error):
            return
        raise RuntimeMissingError(f"{plugin} cannot be loaded: {_explained(str(error))}") from error


def _load_cuda_runtime_beside(library: Path) -> None:
    """Load the CUDA runtime that a plugin's package holds under its full version's name, which the system's loader does not look for."""
    for path in library.parent.glob("libcudart.so.*"):
        with suppress(OSError):  # registering names the library then
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def _explained(error: str) -> str:
    """``error``, with the origin of the shared library that it names."""
    found = re.search(r"(lib[\w+-]+\.so[\w.]*): cannot open shared object file", error)
    origin = found and next((origin for begin, origin in LIBRARIES.items() if found[1].startswith(begin)), None)
    return f"{found[1]} is missing, which {origin} brings" if found and origin else error


def _absent(provider: str) -> str:
    import onnxruntime

    here = ", ".join(onnxruntime.get_available_providers())
    plugin = PLUGINS.get(provider)
    way = f"pip install {plugin.packages[0]}, install a build" if plugin and plugin.at_pypi else "install a build"
    return (
        f"this onnxruntime {onnxruntime.__version__} has no {PROVIDERS[provider]}, only {here}: {way} of ONNX Runtime with it, or "
        "export for another --provider"
    )


@dataclass(frozen=True)
class InstalledPlugin:
    """A plugin that is installed here: its provider's name, its package and version, its devices, or why it cannot run."""

    provider: str
    package: str
    devices: tuple[Device, ...]
    obstacle: str | None


def installed_plugins() -> tuple[InstalledPlugin, ...]:
    """Every plugin that is installed here; each is registered."""
    found = []
    for provider, plugin in PLUGINS.items():
        if is_plugin(provider):
            obstacle = missing(provider)
            devices = () if obstacle else described(plugin_devices(provider))
            found.append(InstalledPlugin(provider, str(plugin), devices, obstacle))
    return tuple(found)


def add_to(options: onnxruntime.SessionOptions, provider: str, chosen: Mapping[str, str]) -> None:
    """Let a session with ``options`` run on a plugin, which :func:`missing` has found, with ``chosen`` options of the provider's own: on its
    first device, or on the one whose number is the ``device_id`` among them."""
    number = int(chosen.get("device_id", 0))
    own = {name: value for name, value in chosen.items() if name != "device_id"}
    options.add_provider_for_devices(list(plugin_devices(provider)[number : number + 1]), own)
