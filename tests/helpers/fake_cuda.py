"""ONNX Runtime with a CUDA provider whose GPU is host memory, and NVIDIA's driver and NVML.

Models are computed by the real ONNX Runtime on the processor. What differs on a GPU is modelled: memory has an owner, a CUDA graph
reads and writes the addresses that it was recorded with, and provider and driver fail in their own words.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from s2mlp_deploy.runtime import cuda_diagnosis
from s2mlp_deploy.schema.array import Array

CUDA = "CUDAExecutionProvider"
REFUSED = (
    "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture feature as requested by the user as the model has "
    "control flow nodes which can't be supported by CUDAExecutionProvider"
)
RECORDING = "CUDA failure 900: operation not permitted when stream is capturing ; GPU=0 ; hostname=h ; expr=cudaMalloc(p, size);"
ILLEGAL = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h ; expr=cudaStreamSynchronize(stream_);"
NO_MEMORY = (
    "Non-zero status code returned while running Gemm node. bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 939524096"
)


@dataclass
class FakeGpu:
    """A machine with GPUs. ``done`` are the calls in order; ``fails`` gives each of them an error to raise, from a count on.

    ``driver`` is the version of CUDA that the driver serves, or None; ``cuda`` that which ONNX Runtime is built for; ``lacking`` the
    library that is not here; ``status`` the error of ``cuInit``; ``free_bytes`` and ``processes`` are those of each GPU.
    """

    names: Sequence[str] = ("NVIDIA H200",)
    driver: int | None = 13000
    cuda: str = "13.0"
    lacking: str = ""
    status: int = 0
    free_bytes: int = 2**30
    processes: int = 1
    fails: dict[str, str] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    options: list[dict[str, str]] = field(default_factory=list)

    def call(self, name: str) -> None:
        """Record the call ``name``, or fail as ``fails`` has it for NAME or, for the Nth call, NAMEN."""
        self.done.append(name)
        text = self.fails.get(name) or self.fails.get(f"{name}{self.done.count(name)}")
        if text:
            raise RuntimeError(text)

    def count(self, name: str) -> int:
        return self.done.count(name)

    def open_library(self, name: str) -> Any:
        """As ctypes.CDLL: the driver, NVML, or the provider."""
        if name == cuda_diagnosis.DRIVER and self.driver is not None:
            return _Driver(self)
        if name == cuda_diagnosis.NVML and self.driver is not None:
            return _Nvml(self)
        if name.endswith(cuda_diagnosis.PROVIDER):
            raise OSError(
                f"{self.lacking}: cannot open shared object file: No such file or directory"
                if self.lacking
                else f"{name}: undefined symbol: Provider_GetHost"
            )
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")


class _Driver:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.gpu.status

    def cuDriverGetVersion(self, found: Any) -> int:  # noqa: N802
        found._obj.value = self.gpu.driver
        return 0

    def cuDeviceGetCount(self, found: Any) -> int:  # noqa: N802
        found._obj.value = len(self.gpu.names)
        return 0

    def cuDeviceGet(self, found: Any, number: int) -> int:  # noqa: N802
        found._obj.value = number
        return 0

    def cuDeviceGetName(self, text: Any, size: int, device: int) -> int:  # noqa: N802
        text.value = self.gpu.names[device].encode()
        return 0

    def cuDeviceGetUuid(self, found: Any, device: int) -> int:  # noqa: N802
        found._obj[15] = device
        return 0


class _Nvml:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, found: Any) -> int:  # noqa: N802
        return int(not uuid.startswith(b"GPU-00000000-0000-0000-0000-0000000000"))

    def nvmlDeviceGetMemoryInfo(self, handle: Any, found: Any) -> int:  # noqa: N802
        total = 80 * 2**30
        found._obj[:] = [total, self.gpu.free_bytes, total - self.gpu.free_bytes]
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, room: None) -> int:  # noqa: N802
        count._obj.value = self.gpu.processes
        return 7  # too little room, as its count is wanted alone


class FakeOrtValue:
    """Memory of a GPU: it is copied in and out, and never seen in between."""

    def __init__(self, gpu: FakeGpu, content: Array) -> None:
        self.gpu, self.content = gpu, content

    def update_inplace(self, data: Array) -> None:
        self.gpu.call("copy in")
        assert data.flags.c_contiguous and data.nbytes == self.content.nbytes
        self.content.reshape(-1).view(np.uint8)[:] = data.reshape(-1).view(np.uint8)  # it compares no types

    def numpy(self) -> Array:
        self.gpu.call("copy out")
        return self.content.copy()


class FakeBinding:
    """What a session reads and writes."""

    def __init__(self) -> None:
        self.inputs: dict[str, FakeOrtValue] = {}
        self.outputs: dict[str, FakeOrtValue | None] = {}

    def bind_ortvalue_input(self, name: str, value: FakeOrtValue) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: FakeOrtValue) -> None:
        self.outputs[name] = value

    def bind_output(self, name: str, device_type: str, device_id: int) -> None:
        self.outputs[name] = None

    def clear_binding_outputs(self) -> None:
        self.outputs.clear()

    def get_outputs(self) -> list[FakeOrtValue | None]:
        return list(self.outputs.values())


class FakeSession:
    """An InferenceSession; with the CUDA provider it captures graphs, and with another it is the real one."""

    def __init__(
        self, gpu: FakeGpu, model: str | bytes, options: Any, providers: list[tuple[str, dict[str, str]]], **more: Any
    ) -> None:
        ((name, chosen),) = providers
        assert more.pop("enable_fallback") == 0
        self._gpu, self._cuda = gpu, name == CUDA
        if self._cuda:
            gpu.options.append(chosen)
            gpu.call("load")
            assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
            if chosen["enable_cuda_graph"] == "1":
                gpu.call("load with graph")
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        on_cpu = ["CPUExecutionProvider"] if self._cuda else providers
        self._real = onnxruntime.InferenceSession(model, options, providers=on_cpu, **more)
        self._graphs: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"] if self._cuda else list(self._real.get_providers())

    def io_binding(self) -> Any:
        return FakeBinding() if self._cuda else self._real.io_binding()

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        if not self._cuda:
            self._real.run_with_iobinding(binding, options)
            return
        number = int(options.get_run_config_entry("gpu_graph_id"))
        recording = self._gpu.options[-1]["enable_cuda_graph"] == "1" and number != -1
        if recording and number in self._graphs:
            self._gpu.call("replay")
            inputs, outputs = ({n: ref() for n, ref in part.items()} for part in self._graphs[number])
            if None in (*inputs.values(), *outputs.values()):
                raise RuntimeError(ILLEGAL)
        else:
            self._gpu.call("record" if recording else "run")
            inputs, outputs = dict(binding.inputs), dict(binding.outputs)
            if recording:
                assert None not in outputs.values(), "a graph writes to fixed addresses"
                self._graphs[number] = tuple(
                    {n: weakref.ref(value) for n, value in part.items()} for part in (inputs, outputs)
                )
        found = self._real.run(list(outputs), {name: value.content for name, value in inputs.items()})
        for (name, value), array in zip(outputs.items(), found, strict=True):
            if value is None:
                binding.outputs[name] = FakeOrtValue(self._gpu, array)
            else:
                assert value.content.shape == array.shape and value.content.dtype == array.dtype
                value.content[...] = array

    def release_captured_graph(self, number: int) -> None:
        self._gpu.call("release")
        del self._graphs[number]


def install(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """Let ``import onnxruntime`` give a build with CUDA, on the machine ``gpu``, until the test ends."""

    class OrtValue:
        @staticmethod
        def ortvalue_from_shape_and_type(shape: Sequence[int], kind: Any, device_type: str, device_id: int) -> Any:
            if device_type != "cuda":
                return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, device_type, device_id)
            assert device_id == int(gpu.options[-1]["device_id"])
            gpu.call("allocate")
            return FakeOrtValue(gpu, np.full(shape, 99, kind))

    fake = ModuleType("onnxruntime")
    fake.__dict__.update(vars(onnxruntime))
    names = ["TensorrtExecutionProvider", CUDA, *onnxruntime.get_available_providers()]
    fake.__dict__.update(
        get_available_providers=lambda: names,
        InferenceSession=lambda *arguments, **more: FakeSession(gpu, *arguments, **more),
        OrtValue=OrtValue,
        preload_dlls=lambda: print("Failed to load a library"),  # as it does for each that is not here
    )
    package = ModuleType("onnxruntime.capi.build_and_package_info")
    package.__dict__["cuda_version"] = gpu.cuda
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr(cuda_diagnosis, "open_library", gpu.open_library)
    monkeypatch.setattr(Path, "exists", _with_provider(Path.exists))
    return gpu


def _with_provider(exists: Any) -> Any:
    return lambda path, *more, **options: path.name == cuda_diagnosis.PROVIDER or exists(path, *more, **options)
