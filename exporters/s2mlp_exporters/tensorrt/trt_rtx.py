"""``--format trt-rtx``: an engine of TensorRT for RTX, which is built ahead of time on any machine."""

from __future__ import annotations

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_exporters.tensorrt.engine import EngineFormat, Settings
from s2mlp_exporters.tensorrt.log import Log
from s2mlp_exporters.tensorrt.options import TensorRtRtxOptions
from s2mlp_exporters.tensorrt.runtime import TENSORRT_RTX, Gpu, Module


class TensorRtRtxEngine(EngineFormat):
    """Engines for desktop GPUs from Turing to Blackwell; kernels are finished on the GPU when they are loaded."""

    name = "trt-rtx"
    runtime = TENSORRT_RTX
    modules = (TENSORRT_RTX.module, "cuda.bindings")
    install_hint = TENSORRT_RTX.remedy
    options = TensorRtRtxOptions

    def cannot_compile(self, options: TensorRtRtxOptions) -> str | None:
        """Why this machine cannot build, where the runtime is missing: no GPU is needed."""
        try:
            self.runtime.load()
        except RuntimeMissingError as error:
            return str(error)
        return None

    def _built_for(self, trt: Module, options: TensorRtRtxOptions) -> tuple[str, ...]:
        return options.compute_capability or ("sm80", "sm86", "sm89", "sm120 and later")

    def _options_for(self, gpu: Gpu) -> str:
        """Turing has to be named."""
        return f" --compute-capability {gpu.sm}" if gpu.capability < (8, 0) else ""

    def _mismatch(self, trt: Module, plan: bytes, settings: Settings, gpu: Gpu) -> str | None:
        """The runtime's own verdict: it reads the engine's header, and loads nothing."""
        logger = Log().into(trt)
        runtime = trt.Runtime(logger)
        validity, found = runtime.get_engine_validity(plan[: runtime.engine_header_size])
        if validity != trt.EngineValidity.INVALID:
            return None
        diagnostics = trt.EngineInvalidityDiagnostics.__members__.items()
        why = ", ".join(name.lower().replace("_", " ") for name, bit in diagnostics if int(found) & int(bit))
        return (
            f"{settings.runtime} {settings.runtime_version} and {', '.join(settings.built_for)}, and this machine has "
            f"{trt.__version__} and {gpu}" + (f" ({why})" if why else "")
        )
