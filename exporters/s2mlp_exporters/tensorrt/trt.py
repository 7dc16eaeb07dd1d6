"""``--format trt``: a TensorRT engine, built on a machine with the GPU that it is for."""

from __future__ import annotations

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_exporters.tensorrt.engine import EngineFormat, Settings
from s2mlp_exporters.tensorrt.options import TensorRtOptions
from s2mlp_exporters.tensorrt.runtime import (
    AMPERE,
    TENSORRT,
    TENSORRT_LEAN,
    Gpu,
    Module,
    Runtime,
    find_gpu,
    release,
)


class TensorRtEngine(EngineFormat):
    """Engines for Jetsons, data centres and desktops.

    By default one is for exactly this version of TensorRT and this kind of GPU; ``version_compatible`` and
    ``hardware_compatible`` widen that, at some cost in speed.
    """

    name = "trt"
    runtime = TENSORRT
    install_hint = TENSORRT.remedy
    alternative = "Or build an engine for desktop GPUs on this machine, with --format trt-rtx"
    options = TensorRtOptions

    def __init__(self) -> None:
        self.modules = (self._runtime().module, "cuda.bindings")

    def cannot_compile(self, options: TensorRtOptions) -> str | None:
        """Why this machine cannot build: TensorRT measures its kernels on the GPU while it builds."""
        try:
            self.runtime.load()
        except RuntimeMissingError as error:
            return str(error)
        return self.cannot_run(options)

    def _runtime(self) -> Runtime:
        """TensorRT, or its lean runtime where that alone is installed."""
        return TENSORRT_LEAN if TENSORRT_LEAN.installed and not TENSORRT.installed else TENSORRT

    def _cannot_load(self, settings: Settings) -> str | None:
        """Why the lean runtime does not load an engine that only TensorRT itself does."""
        if self._runtime() is TENSORRT or (settings.has("version_compatible") and not settings.has("strip_weights")):
            return None
        return (
            f"this machine has {TENSORRT_LEAN.title} alone, which runs engines that were built with --version-compatible and without "
            f"--strip-weights. Build it so on a machine with TensorRT and this GPU, or install TensorRT: {TENSORRT.remedy}"
        )

    def _built_for(self, trt: Module, options: TensorRtOptions) -> tuple[str, ...]:
        found = find_gpu()
        if not isinstance(found, Gpu):
            raise RuntimeMissingError(f"building a TensorRT engine needs an NVIDIA GPU: {found}")
        return found.sm, found.name

    def _mismatch(self, trt: Module, plan: bytes, settings: Settings, gpu: Gpu) -> str | None:
        here = str(trt.__version__)
        # Engines that bring their runtime run on later releases, not on earlier ones.
        later = settings.brings_runtime and release(settings.runtime_version) <= release(here)
        if settings.runtime_version != here and not later:
            return f"TensorRT {settings.runtime_version}, and this machine has {here}"
        built = settings.built_for[0] if settings.built_for else "no GPU"
        if built != gpu.sm and not (settings.has("hardware_compatible") and gpu.capability >= AMPERE):
            return f"{' '.join(reversed(settings.built_for))}, and this machine has {gpu}"
        return None
