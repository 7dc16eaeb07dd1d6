"""An engine on a GPU: host memory in, host memory out, and where the time goes between."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from s2mlp_deploy.errors import BundleError, RuntimeMissingError, UsageError
from s2mlp_deploy.graph.layer import INPUT, OUTPUT
from s2mlp_deploy.runtime.session import Times
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.tensorrt.log import Log, reason
from s2mlp_exporters.tensorrt.profile import Profile, Shape, format_shape
from s2mlp_exporters.tensorrt.runtime import Cuda, CudaError, Module


def load(
    trt: Module, plan: bytes, log: Log, *, weights: Path | None = None, brings_runtime: bool = False
) -> tuple[Any, Any]:
    """The engine, and the objects that must live as long. ``weights`` is the ONNX file of an engine without its own;
    ``brings_runtime`` states that the plan holds the runtime that it runs on, as version-compatible ones do.

    The plan is executable code: its hash must have been checked before.

    Raises:
        BundleError: where the runtime does not take it.
    """
    logger = log.into(trt)
    runtime = trt.Runtime(logger)
    if brings_runtime:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BundleError(f"{trt.__name__} {trt.__version__} cannot load the engine: {reason(log.errors)}")
    if weights:
        refitter = trt.Refitter(engine, logger)
        parser = trt.OnnxParserRefitter(refitter, logger)
        if not parser.refit_from_file(str(weights)) or not refitter.refit_cuda_engine():
            raise BundleError(f"{weights} does not fill the engine's weights: {reason(log.errors)}")
    return engine, (logger, runtime)


@dataclass(frozen=True)
class Buffer:
    """An input's or output's memory: on the GPU, and the same on the host, pinned, with a view of its bytes."""

    dtype: np.dtype[Any]
    on_device: Any
    on_host: Any
    view: Array


class EngineSession:
    """An engine with its buffers: allocated once, for the largest inputs of its profile.

    After the first run with a shape the work is replayed as a CUDA graph: TensorRT for RTX captures it by
    itself, for TensorRT it is captured here. There is one set of buffers, so threads take turns. The GPU's
    resources are released when the session is closed or no longer referenced.

    Raises:
        RuntimeMissingError: where the GPU fails, or has too little memory.
    """

    def __init__(self, trt: Module, engine: Any, owners: object, cuda: Cuda) -> None:
        self._held = ExitStack()  # releases the GPU's resources, once
        self._graph: Any = None
        self._turn = Lock()
        self._owners = owners
        self._cuda, self._engine = cuda, engine
        self._captures_itself = hasattr(trt, "CudaGraphStrategy")
        self._context = self._execution_context(trt)
        if self._context is None:
            raise RuntimeMissingError(
                "the GPU has too little free memory for this engine: build it for a smaller --batch"
            )
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name).name == "INPUT"]
        self._outputs = tuple(name for name in names if name not in inputs)
        self._profiles = {
            name: Profile(*(tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0))) for name in inputs
        }
        self._shapes: Mapping[str, Shape] = {}  # of the inputs and outputs that it is prepared for
        try:
            # Not the default stream, on which an engine synchronizes the device.
            self._stream = self._take("StreamCreate", "StreamDestroy")
            self._events = tuple(self._take("EventCreate", "EventDestroy") for _ in range(4))
            largest = self._set_shapes({name: profile.largest for name, profile in self._profiles.items()})
            self._buffers = {name: self._buffer(trt, name, shape) for name, shape in largest.items()}
        except CudaError as error:
            self.close()
            raise RuntimeMissingError(
                f"the GPU cannot hold this engine's buffers ({error}): build for a smaller --batch"
            ) from error
        for name, buffer in self._buffers.items():
            self._context.set_tensor_address(name, int(buffer.on_device))

    def run(self, images: Array) -> Array:
        """Logits (batch, classes) float32 of ``images`` (batch, channels, height, width).

        More than the engine takes at once run one part after another; fewer are filled up with copies.

        Raises:
            UsageError: for a size that the engine was not built for.
            RuntimeMissingError: where the GPU fails.
        """
        profile = self._profiles[INPUT]
        low, high = profile.smallest[0], profile.largest[0]
        logits = []
        for start in range(0, len(images), high):
            part = images[start : start + high]
            missing = max(0, low - len(part))
            filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            with self._turn:
                self._step({INPUT: filled}, lambda event: None)
                logits.append(self._found(OUTPUT)[: len(part)].astype(np.float32))
        return np.concatenate(logits)

    def compute(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """All outputs, by name, for all ``inputs``, by name, which are run as they are: neither split nor filled up.

        Raises:
            UsageError: for shapes that the engine was not built for, and other names than its own.
            RuntimeMissingError: where the GPU fails.
        """
        with self._turn:
            self._step(inputs, lambda event: None)
            return {name: self._found(name) for name in self._outputs}

    def time(self, images: Array) -> Times:
        """How long one batch takes on the GPU; the first with a shape prepares, and is not representative.

        Raises:
            UsageError, RuntimeMissingError: as :meth:`run`.
        """
        with self._turn:
            self._step({INPUT: images}, lambda event: self._cuda.EventRecord(self._events[event], self._stream))
            between = zip(self._events, self._events[1:], strict=False)
            return Times(*(float(self._cuda.EventElapsedTime(first, second)) for first, second in between))

    def close(self) -> None:
        """Give everything back to the GPU."""
        with self._turn:
            with suppress(CudaError):  # of a GPU that failed before
                self._drop_graph()
            self._context = self._engine = self._owners = None
            with suppress(CudaError):
                self._held.close()

    def __del__(self) -> None:
        self.close()

    def _take(self, make: str, give_back: str, *size: int) -> Any:
        made = getattr(self._cuda, make)(*size)
        self._held.callback(getattr(self._cuda, give_back), made)
        return made

    def _execution_context(self, trt: Module) -> Any:
        if not self._captures_itself:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # Otherwise the first runs of a shape use slower kernels, until better ones have been compiled meanwhile.
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        return self._engine.create_execution_context(config)

    def _buffer(self, trt: Module, name: str, shape: Shape) -> Buffer:
        """Memory for the tensor called ``name``, whose largest shape is ``shape``."""
        dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
        size = max(1, math.prod(shape)) * dtype.itemsize
        on_device = self._take("Malloc", "Free", size)
        on_host = self._take("MallocHost", "FreeHost", size)  # pinned, so that copies do not wait
        view = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(on_host)))
        return Buffer(dtype, on_device, on_host, view)

    def _step(self, inputs: Mapping[str, Array], record: Callable[[int], None]) -> None:
        if self._context is None:
            raise UsageError("the engine's session is closed: open the engine again")
        if inputs.keys() != self._profiles.keys():
            raise UsageError(f"inputs called {', '.join(inputs)}: the engine's are {', '.join(self._profiles)}")
        self._prepare({name: np.shape(inputs[name]) for name in self._profiles})
        for name, array in inputs.items():
            content = np.asarray(array, self._buffers[name].dtype, order="C").reshape(-1).view(np.uint8)
            self._buffers[name].view[: content.size] = content
        kind = self._cuda.runtime.cudaMemcpyKind
        try:
            record(0)
            for name in self._profiles:
                buffer = self._buffers[name]
                self._copy(name, buffer.on_device, buffer.on_host, kind.cudaMemcpyHostToDevice)
            record(1)
            self._compute()
            record(2)
            for name in self._outputs:
                buffer = self._buffers[name]
                self._copy(name, buffer.on_host, buffer.on_device, kind.cudaMemcpyDeviceToHost)
            record(3)
            self._cuda.StreamSynchronize(self._stream)
        except CudaError as error:
            raise RuntimeMissingError(f"the GPU failed while it ran the engine: {error}") from error

    def _copy(self, name: str, to: Any, origin: Any, kind: Any) -> None:
        """Copy the tensor called ``name``, as large as it is in this run."""
        if size := self._bytes(name, self._shapes[name]):
            self._cuda.MemcpyAsync(to, origin, size, kind, self._stream)

    def _bytes(self, name: str, shape: Shape) -> int:
        return math.prod(shape) * self._buffers[name].dtype.itemsize

    def _prepare(self, inputs: Mapping[str, Shape]) -> None:
        """Set the shapes, run once, and record the work where the runtime does not do so itself."""
        if self._shapes and all(shape == self._shapes[name] for name, shape in inputs.items()):
            return
        self._drop_graph()
        self._shapes = {}
        for name, shape in inputs.items():
            profile = self._profiles[name]
            if len(shape) != len(profile.largest) or not profile.admits(shape):
                raise UsageError(f"an input of {format_shape(shape)}: the engine was built for {profile}")
        shapes = self._set_shapes(inputs)
        if large := next((n for n, s in shapes.items() if self._bytes(n, s) > self._buffers[n].view.size), None):
            raise UsageError(f"{large} of {format_shape(shapes[large])} is larger than for the engine's largest inputs")
        try:
            self._enqueue()  # capturing needs an engine that has run (NVIDIA/TensorRT issue 2603)
            self._cuda.StreamSynchronize(self._stream)
            if not self._captures_itself:
                self._capture()
        except CudaError as error:
            raise RuntimeMissingError(f"the GPU failed while it ran the engine: {error}") from error
        self._shapes = shapes

    def _set_shapes(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """Set the shapes of ``inputs``; the shapes of all inputs and outputs that follow."""
        for name, shape in inputs.items():
            if not self._context.set_input_shape(name, shape):
                raise UsageError(f"the engine does not take an input of {format_shape(shape)}")
        outputs = {name: tuple(self._context.get_tensor_shape(name)) for name in self._outputs}
        if unknown := next((name for name, shape in outputs.items() if min(shape, default=0) < 0), None):
            raise UsageError(
                f"the size of {unknown} does not follow from the inputs' sizes: engines with such outputs cannot be run here"
            )
        return {**inputs, **outputs}

    def _capture(self) -> None:
        mode = self._cuda.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda.StreamBeginCapture(self._stream, mode)
        enqueued = self._context.execute_async_v3(int(self._stream))
        try:
            recorded = self._cuda.StreamEndCapture(self._stream)
        except CudaError:
            self._cuda.runtime.cudaGetLastError()  # or the engine takes it for its own
            return  # some engines cannot be captured; they are enqueued each time
        try:
            if enqueued:
                self._graph = self._cuda.GraphInstantiate(recorded, 0)
        finally:
            self._cuda.GraphDestroy(recorded)

    def _compute(self) -> None:
        if self._graph is None:
            self._enqueue()
        else:
            self._cuda.GraphLaunch(self._graph, self._stream)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise CudaError("the engine could not be started")

    def _drop_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._cuda.GraphExecDestroy(graph)

    def _found(self, name: str) -> Array:
        """A copy of the output called ``name`` of the last run."""
        buffer, shape = self._buffers[name], self._shapes[name]
        found: Array = buffer.view[: self._bytes(name, shape)].view(buffer.dtype).reshape(shape).copy()
        return found
