"""The CUDA runtime and an engine of TensorRT, in host memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.tensorrt.profile import Shape
from s2mlp_exporters.tensorrt.runtime import CudaError
from s2mlp_exporters.tensorrt.session import EngineSession

CLASSES = 2


class FakeCuda:
    """The CUDA runtime in host memory. ``done`` are the calls in order; those that ``fails`` names fail."""

    def __init__(self, *fails: str) -> None:
        self.fails = set(fails)
        self.done: list[str] = []
        self.memory: dict[int, Any] = {}
        self.clock = 0.0
        self.recorded: list[Callable[[], None]] | None = None
        self.pause: Callable[[], object] = lambda: None
        kinds = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        self.runtime = SimpleNamespace(
            cudaMemcpyKind=kinds,
            cudaStreamCaptureMode=SimpleNamespace(cudaStreamCaptureModeThreadLocal=1),
            cudaGetLastError=lambda: self.done.append("GetLastError"),
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.done.append(name)
            self.pause()
            if name in self.fails or f"{name}{self.done.count(name)}" in self.fails:
                self.recorded = None  # no capture outlives an error
                raise CudaError(f"cuda{name}: an error")
            return getattr(self, f"_{name}", lambda *_: None)(*arguments)

        return call

    def count(self, *names: str) -> int:
        return sum(self.done.count(name) for name in names)

    def enqueue(self, work: Callable[[], None], ms: float) -> None:
        """``work`` that takes ``ms``: done at once, or kept where a graph is being captured."""

        def step() -> None:
            work()
            self.clock += ms

        if self.recorded is None:
            step()
        else:
            self.recorded.append(step)

    def _StreamCreate(self) -> int:  # noqa: N802
        return 7

    def _EventCreate(self) -> list[float]:  # noqa: N802
        return [0.0]

    def _EventRecord(self, event: list[float], stream: int) -> None:  # noqa: N802
        event[0] = self.clock

    def _EventElapsedTime(self, first: list[float], second: list[float]) -> float:  # noqa: N802
        return second[0] - first[0]

    def _Malloc(self, size: int) -> int:  # noqa: N802
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    _MallocHost = _Malloc

    def _Free(self, pointer: int) -> None:  # noqa: N802
        del self.memory[pointer]

    _FreeHost = _Free

    def _MemcpyAsync(self, to: int, origin: int, size: int, kind: int, stream: int) -> None:  # noqa: N802
        self.enqueue(lambda: ctypes.memmove(to, origin, size) and None, 1.0 if kind == 1 else 4.0)

    def _StreamBeginCapture(self, stream: int, mode: int) -> None:  # noqa: N802
        self.recorded = []

    def _StreamEndCapture(self, stream: int) -> list[Callable[[], None]]:  # noqa: N802
        assert self.recorded is not None
        work, self.recorded = self.recorded, None
        return work

    def _GraphInstantiate(self, graph: list[Callable[[], None]], flags: int) -> tuple[Callable[[], None], ...]:  # noqa: N802
        return tuple(graph)

    def _GraphLaunch(self, graph: tuple[Callable[[], None], ...], stream: int) -> None:  # noqa: N802
        for step in graph:
            step()


class FakeEngine:
    """Answers as an engine does, whose outputs are ``compute``'s of its inputs."""

    def __init__(
        self,
        cuda: FakeCuda,
        profiles: Mapping[str, tuple[Shape, ...]],
        dtypes: Mapping[str, str],
        compute: Callable[..., tuple[Array, ...]],
    ) -> None:
        self.cuda, self.profiles, self.dtypes, self.compute = cuda, profiles, dtypes, compute
        self.names = list(dtypes)
        self.num_io_tensors = len(self.names)
        self.address: dict[str, int] = {}
        self.shape: dict[str, Shape] = {}
        self.takes_shapes = self.starts = self.knows_sizes = True
        self.config: Any = None
        self.has_memory = True

    def create_runtime_config(self) -> Any:
        return SimpleNamespace()

    def create_execution_context(self, config: Any = None) -> FakeEngine | None:
        self.config = config
        return self if self.has_memory else None

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name="INPUT" if name in self.profiles else "OUTPUT")

    def get_tensor_profile_shape(self, name: str, index: int) -> list[Shape]:
        assert index == 0
        return list(self.profiles[name])

    def get_tensor_dtype(self, name: str) -> str:
        return self.dtypes[name]

    def get_tensor_shape(self, name: str) -> Shape:
        """Of an output: as an engine, it works the shape out from those of the inputs."""
        shape = self._results({n: np.zeros(self.shape[n], self.dtypes[n]) for n in self.profiles})[name].shape
        return shape if self.knows_sizes else (-1, *shape[1:])

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self.shape[name] = shape
        return self.takes_shapes

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self.address[name] = pointer
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        self.cuda.done.append("execute")
        shapes = dict(self.shape)
        if self.starts:
            self.cuda.enqueue(lambda: self._run(shapes), 2.0)
        return self.starts

    def _run(self, shapes: Mapping[str, Shape]) -> None:
        results = self._results({name: self._tensor(name, shapes[name]) for name in self.profiles})
        for name, result in results.items():
            self._tensor(name, result.shape)[...] = result

    def _results(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = [name for name in self.names if name not in self.profiles]
        return dict(zip(outputs, self.compute(**inputs), strict=True))

    def _tensor(self, name: str, shape: Shape) -> Array:
        dtype = np.dtype(self.get_tensor_dtype(name))
        content = (ctypes.c_uint8 * (math.prod(shape) * dtype.itemsize)).from_address(self.address[name])
        return np.ctypeslib.as_array(content).view(dtype).reshape(shape)


def sums_and_largest(input: Array) -> tuple[Array, ...]:
    """Logits: each image's sum and largest value."""
    x = input.astype(np.float32)
    return (np.stack([x.sum((1, 2, 3)), x.max((1, 2, 3))], axis=1),)


class Fake:
    """A session with the fakes behind it."""

    def __init__(
        self,
        *fails: str,
        batches: tuple[int, int, int] = (1, 2, 4),
        sizes: tuple[int, int, int] = (8, 8, 8),
        rtx: bool = False,
        dtypes: tuple[str, str] = ("float32", "float32"),
    ) -> None:
        self.cuda = FakeCuda(*fails)
        profile = tuple((n, 3, size, 12) for n, size in zip(batches, sizes, strict=True))
        types = dict(zip(("input", "logits"), dtypes, strict=True))
        self.engine = FakeEngine(self.cuda, {"input": profile}, types, sums_and_largest)
        self.trt: Any = SimpleNamespace(nptype=np.dtype)
        if rtx:
            self.trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
            self.trt.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

    def session(self) -> EngineSession:
        return EngineSession(self.trt, self.engine, object(), self.cuda)  # type: ignore[arg-type]


def images(count: int, height: int = 8, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, height, 12)).astype(np.float32)
