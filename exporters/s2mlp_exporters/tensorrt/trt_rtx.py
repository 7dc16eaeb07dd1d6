"""``--format trt-rtx``: an engine of TensorRT for RTX, which is built ahead of time on any machine."""

from __future__ import annotations

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_exporters.tensorrt.engine import EngineFormat, Settings
from s2mlp_exporters.tensorrt.log import Log
from s2mlp_exporters.tensorrt.options import TensorRtRtxOptions
from s2mlp_exporters.tensorrt.runtime import AMPERE, TENSORRT_RTX, Gpu, Module, capabilities, sm


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
        if options.compute_capability:
            return options.compute_capability
        by_default = [one for one in capabilities(trt) if one >= AMPERE]  # Turing has to be named
        newest = min(one for one in by_default if one[0] == by_default[-1][0])
        return *(sm(one) for one in by_default if one < newest), f"{sm(newest)} and later"

    def _refusal(self, trt: Module, gpu: Gpu) -> str | None:
        """Why no engine runs on ``gpu``: it is not among the runtime's own list, as those of data centres from Hopper on are not."""
        known = capabilities(trt)
        if gpu.capability in known or gpu.capability > known[-1]:
            return None
        return (
            f"{self.runtime.title} {trt.__version__} runs on GPUs of compute capability {', '.join('{}.{}'.format(*one) for one in known)} "
            f"and later, and this machine has {gpu}: use --format trt, or --format ort --provider cuda"
        )

    def _options_for(self, gpu: Gpu) -> str:
        """Turing has to be named."""
        return f" --compute-capability {gpu.sm}" if gpu.capability < AMPERE else ""

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
