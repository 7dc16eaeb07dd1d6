"""An engine on a GPU: host memory in, host memory out, and where the time goes between."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from s2mlp_deploy.errors import BundleError, RuntimeMissingError, UsageError
from s2mlp_deploy.graph.layer import INPUT, OUTPUT
from s2mlp_deploy.runtime.session import Times
from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.tensorrt.log import Log, reason
from s2mlp_exporters.tensorrt.profile import Profile
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


class EngineSession:
    """An engine with its buffers: allocated once, for the largest input of its profile.

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
        self._profile = Profile(*(tuple(shape) for shape in engine.get_tensor_profile_shape(INPUT, 0)))
        self._in_dtype, self._out_dtype = (
            np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in (INPUT, OUTPUT)
        )
        self._context.set_input_shape(INPUT, self._profile.largest)
        self._classes = int(self._context.get_tensor_shape(OUTPUT)[-1])
        self._shape: tuple[int, ...] | None = None
        sizes = (
            math.prod(self._profile.largest) * self._in_dtype.itemsize,
            self._profile.largest[0] * self._classes * self._out_dtype.itemsize,
        )
        try:
            # Not the default stream, on which an engine synchronizes the device; pinned memory, so that copies do not wait.
            self._stream = self._take("StreamCreate", "StreamDestroy")
            self._events = tuple(self._take("EventCreate", "EventDestroy") for _ in range(4))
            self._on_device = tuple(self._take("Malloc", "Free", size) for size in sizes)
            self._on_host = tuple(self._take("MallocHost", "FreeHost", size) for size in sizes)
        except CudaError as error:
            self.close()
            raise RuntimeMissingError(
                f"the GPU cannot hold this engine's buffers ({error}): build for a smaller --batch"
            ) from error
        self._views = tuple(
            np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(pointer)))
            for size, pointer in zip(sizes, self._on_host, strict=True)
        )
        for name, pointer in zip((INPUT, OUTPUT), self._on_device, strict=True):
            self._context.set_tensor_address(name, int(pointer))

    def run(self, images: Array) -> Array:
        """Logits (batch, classes) float32 of ``images`` (batch, channels, height, width).

        More than the engine takes at once run one part after another; fewer are filled up with copies.

        Raises:
            UsageError: for a size that the engine was not built for.
            RuntimeMissingError: where the GPU fails.
        """
        low, high = self._profile.smallest[0], self._profile.largest[0]
        logits = []
        for start in range(0, len(images), high):
            part = images[start : start + high]
            missing = max(0, low - len(part))
            filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            with self._turn:
                self._step(filled, lambda event: None)
                logits.append(self._logits(len(filled))[: len(part)])
        return np.concatenate(logits)

    def time(self, images: Array) -> Times:
        """How long one batch takes on the GPU; the first with a shape prepares, and is not representative.

        Raises:
            UsageError, RuntimeMissingError: as :meth:`run`.
        """
        with self._turn:
            self._step(images, lambda event: self._cuda.EventRecord(self._events[event], self._stream))
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

    def _step(self, images: Array, record: Callable[[int], None]) -> None:
        if self._context is None:
            raise UsageError("the engine's session is closed: open the engine again")
        content = np.ascontiguousarray(images, self._in_dtype)
        self._prepare(content.shape)
        (x, y), (host_x, host_y) = self._on_device, self._on_host
        kind = self._cuda.runtime.cudaMemcpyKind
        self._views[0][: content.nbytes] = content.reshape(-1).view(np.uint8)
        out_bytes = len(content) * self._classes * self._out_dtype.itemsize
        try:
            record(0)
            self._cuda.MemcpyAsync(x, host_x, content.nbytes, kind.cudaMemcpyHostToDevice, self._stream)
            record(1)
            self._compute()
            record(2)
            self._cuda.MemcpyAsync(host_y, y, out_bytes, kind.cudaMemcpyDeviceToHost, self._stream)
            record(3)
            self._cuda.StreamSynchronize(self._stream)
        except CudaError as error:
            raise RuntimeMissingError(f"the GPU failed while it ran the engine: {error}") from error

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Set the shape, run once, and record the work where the runtime does not do so itself."""
        if shape == self._shape:
            return
        self._drop_graph()
        self._shape = None
        if len(shape) != len(self._profile.largest) or not self._profile.admits(shape):
            raise UsageError(f"an input of {'x'.join(map(str, shape))}: the engine was built for {self._profile}")
        if not self._context.set_input_shape(INPUT, shape):
            raise UsageError(f"the engine does not take an input of {'x'.join(map(str, shape))}")
        try:
            self._enqueue()  # capturing needs an engine that has run (NVIDIA/TensorRT issue 2603)
            self._cuda.StreamSynchronize(self._stream)
            if not self._captures_itself:
                self._capture()
        except CudaError as error:
            raise RuntimeMissingError(f"the GPU failed while it ran the engine: {error}") from error
        self._shape = shape

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

    def _logits(self, rows: int) -> Array:
        size = rows * self._classes * self._out_dtype.itemsize
        logits: Array = self._views[1][:size].view(self._out_dtype).reshape(rows, self._classes).astype(np.float32)
        return logits
