"""A model in ONNX Runtime on an NVIDIA GPU: its inputs and outputs stay there, and each shape's work is recorded and replayed.

At batch 1 most of the time goes into starting kernels, one after another; a CUDA graph starts all of them at once
(docs/gpu.md has times). A graph reads and writes the addresses that it was recorded with, so each shape has buffers of its own.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from s2mlp_deploy.errors import BundleError, Error, RuntimeMissingError
from s2mlp_deploy.runtime import cuda_diagnosis
from s2mlp_deploy.runtime.onnxruntime import Loading, OnnxSession, fed, load, missing
from s2mlp_deploy.runtime.session import Kernel, Times
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import Execution

if TYPE_CHECKING:
    import onnxruntime

Shapes: TypeAlias = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, type and shape of each input."""

MOST_SHAPES = 8
"""Shapes whose buffers and graph are kept; of more, the least recently used is dropped."""

MOST_GRAPHS = 64
"""Graphs that are recorded before the model is loaded again: releases of ONNX Runtime differ in what dropping one gives back."""

CLOCK = "the host's clock, around each copy and the computation, which the host waits for"
"""The clock of :meth:`CudaSession.time`. The stream on which ONNX Runtime computes is its own, so that no events can be recorded there."""

_TURN = RLock()
"""Held by the one thread of the process that uses a GPU: while a graph is recorded, no other may allocate or copy there."""

_GRAPH_REFUSED = "cannot use the graph capture feature"
_WHILE_RECORDING = re.compile(
    r"CUDA (?:failure|error) 90\d\b|[Ss]tream is capturing|[Ss]tream ?[Cc]apture|previous error during capture"
)
_GRAPH_ID, _NO_GRAPH_ID = "gpu_graph_id", -1

_NUMPY: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class _Bound:
    """The buffers for inputs of certain shapes, bound to the model, and the number of the CUDA graph that reads and writes them.

    ``outputs`` is None where the outputs' shapes are not known before a run; there is no graph then.
    """

    binding: onnxruntime.IOBinding
    inputs: Mapping[str, onnxruntime.OrtValue]
    outputs: Mapping[str, onnxruntime.OrtValue] | None
    graph: int


class CudaSession(OnnxSession):
    """A model in ONNX Runtime's CUDA provider, from an ``.onnx`` or an ``.ort`` file.

    The first run with a shape allocates its buffers and records its CUDA graph. Threads take turns, those of other sessions
    of the process too. With the provider ``cpu`` the same code binds memory of the host.

    Raises:
        RuntimeMissingError: where there is no GPU, driver or library for it, or too little memory.
        BundleError: where ONNX Runtime cannot load the model.
    """

    def __init__(self, path: Path, loading: Loading) -> None:
        self._kept: OrderedDict[Shapes, _Bound] = OrderedDict()
        self._recorded = 0
        self._without_graph = None if loading.cuda_graph else "it was switched off"
        super().__init__(path, loading)

    def time(self, images: Array) -> Times:
        """How long one batch takes to copy in, to compute and to copy out; the first with a shape includes preparation.

        Raises:
            RuntimeMissingError, BundleError: as :meth:`run`.
        """
        at: list[float] = []
        with self._turn(images.shape):
            self._step(fed(self._session(), images), None, lambda: at.append(time.perf_counter()))
        return Times(*((after - before) * 1e3 for before, after in pairwise(at)))

    def profile(self, images: Array, runs: int) -> tuple[Kernel, ...]:
        """Every operator's runs, without a CUDA graph; their times are those that starting them takes.

        Raises:
            RuntimeMissingError, BundleError: as :meth:`run`.
        """
        with self._turn(images.shape):
            return super().profile(images, runs)

    def execution(self) -> Execution:
        """The GPU, and how it is used."""
        return Execution(
            provider=self._loading.provider,
            device=self._loading.device,
            gpu=cuda_diagnosis.name_of(self._loading.device) or "",
            tf32=self._loading.tf32,
            cuda_graph=self._without_graph is None,
            without_graph=self._without_graph,
            clock=CLOCK,
        )

    def close(self) -> None:
        """Give weights, buffers and graphs back; the next run loads the model again."""
        with _TURN:
            self._kept.clear()
            self._recorded = 0
            super().close()

    def _load(self) -> onnxruntime.InferenceSession:
        device = self._loading.device
        if reason := missing(self._loading.provider) or (cuda_diagnosis.obstacle(device) if device else None):
            raise RuntimeMissingError(reason)
        with self._turn(None):
            session = self._load_with_graph()
        if self._without_graph is None and not _known_before_a_run(session):
            self._without_graph = "the sizes of its outputs follow from values, and a graph writes to fixed places"
        return session

    def _load_with_graph(self) -> onnxruntime.InferenceSession:
        """The session, without a CUDA graph where ONNX Runtime refuses to record one."""
        try:
            return load(self._path, self._loading)
        except BundleError as error:
            if _GRAPH_REFUSED not in str(error):
                raise
            part = "loops or branches" if "control flow" in str(error) else "parts that run on the processor"
        self._go_without_graph(f"the model has {part}, which cannot be recorded")
        return load(self._path, self._loading)

    def _session(self, names: tuple[str, ...] = ()) -> onnxruntime.InferenceSession:
        with _TURN:  # so that no two threads load the model
            return super()._session(names)

    def _go_without_graph(self, reason: str) -> None:
        """Let the model run as it is: the numbers are the same, and :meth:`execution` gives the reason."""
        self._without_graph = reason
        self._loading = replace(self._loading, cuda_graph=False)

    def _values(
        self, names: list[str], inputs: Mapping[str, Array], options: onnxruntime.RunOptions | None = None
    ) -> list[Array]:
        batch = next(iter(inputs.values())).shape if inputs else None
        with self._turn(batch):
            try:
                found = self._step(inputs, options)
            except Exception as error:
                if self._without_graph or not _WHILE_RECORDING.search(str(error)):
                    raise
                self.close()
                self._go_without_graph("ONNX Runtime ran the model, and could not record it")
                found = self._step(inputs, options)
        return [found[name] for name in names]

    @contextmanager
    def _turn(self, batch: tuple[int, ...] | None) -> Iterator[None]:
        """The turn of this thread; a failure of the GPU, on inputs of shape ``batch``, is raised in words."""
        with _TURN:
            try:
                yield
            except Exception as error:
                known = cuda_diagnosis.explain(str(error), self._loading.device, batch)
                if known is None or (isinstance(error, Error) and not isinstance(error, BundleError)):
                    raise
                self.close()
                raise RuntimeMissingError(known) from error

    def _step(
        self,
        inputs: Mapping[str, Array],
        options: onnxruntime.RunOptions | None,
        mark: Callable[[], object] = lambda: None,
    ) -> dict[str, Array]:
        """All outputs, by name; ``mark`` is called before and after each copy and the computation, which the host waits for."""
        shapes = tuple((name, inputs[name].dtype.str, inputs[name].shape) for name in sorted(inputs))
        bound = self._bound(shapes, inputs)
        options = options or _run_options()
        options.add_run_config_entry(_GRAPH_ID, str(bound.graph))
        try:
            mark()
            for name, array in inputs.items():
                bound.inputs[name].update_inplace(np.ascontiguousarray(array))
            mark()
            outputs = self._run_bound(bound, options)
            mark()
            found = {name: value.numpy().copy() for name, value in outputs.items()}  # from a GPU, numpy() copies, too
            mark()
        except Exception:
            self._kept.pop(shapes, None)  # what it holds is not known
            raise
        return found

    def _run_bound(self, bound: _Bound, options: onnxruntime.RunOptions) -> Mapping[str, onnxruntime.OrtValue]:
        """The outputs, on the GPU, of the inputs that lie in the buffers."""
        session = self._session()
        if bound.outputs is not None:
            session.run_with_iobinding(bound.binding, options)
            return bound.outputs
        names = [output.name for output in session.get_outputs()]
        bound.binding.clear_binding_outputs()  # else this run would write into the last one's outputs, whatever their shapes
        for name in names:
            bound.binding.bind_output(name, self._loading.provider, self._loading.device)
        session.run_with_iobinding(bound.binding, options)
        return dict(zip(names, bound.binding.get_outputs(), strict=True))

    def _bound(self, shapes: Shapes, inputs: Mapping[str, Array]) -> _Bound:
        """The buffers for ``inputs`` of certain shapes, which are made where they are not kept."""
        if shapes not in self._kept:
            if self._recorded >= MOST_GRAPHS:
                self.close()
            if len(self._kept) >= MOST_SHAPES:
                self._drop_oldest()
            self._kept[shapes] = self._bind(inputs)
        self._kept.move_to_end(shapes)
        return self._kept[shapes]

    def _drop_oldest(self) -> None:
        _, dropped = self._kept.popitem(last=False)
        release = getattr(self._session(), "release_captured_graph", None)  # from 1.31 on
        if release and dropped.graph != _NO_GRAPH_ID:
            release(dropped.graph)

    def _bind(self, inputs: Mapping[str, Array]) -> _Bound:
        session = self._session()
        declared = {entry.name: entry for entry in session.get_inputs()}
        for name in inputs.keys() ^ declared.keys():
            raise BundleError(
                f"inputs called {', '.join(inputs)}: expected {', '.join(declared)}, so {name} is one too many or missing"
            )
        sizes: dict[str, int] = {}
        for name, array in inputs.items():
            if array.dtype != _numpy_type(declared[name]):
                raise BundleError(f"the input {name} is {array.dtype}: expected {declared[name].type}")
            sizes |= {
                axis: n for axis, n in zip(declared[name].shape, array.shape, strict=False) if isinstance(axis, str)
            }
        known = {output.name: _shape(output.shape, sizes) for output in session.get_outputs()}
        binding = session.io_binding()
        buffers = {name: self._buffer(array.shape, declared[name]) for name, array in inputs.items()}
        for name, buffer in buffers.items():
            binding.bind_ortvalue_input(name, buffer)
        shapes = {name: shape for name, shape in known.items() if shape is not None}
        if len(shapes) < len(known):
            return _Bound(binding, buffers, None, _NO_GRAPH_ID)
        outputs = {output.name: self._buffer(shapes[output.name], output) for output in session.get_outputs()}
        for name, buffer in outputs.items():
            binding.bind_ortvalue_output(name, buffer)
        if self._without_graph:
            return _Bound(binding, buffers, outputs, _NO_GRAPH_ID)
        self._recorded += 1
        return _Bound(binding, buffers, outputs, self._recorded)

    def _buffer(self, shape: tuple[int, ...], entry: onnxruntime.NodeArg) -> onnxruntime.OrtValue:
        import onnxruntime

        place = self._loading.provider, self._loading.device
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, _numpy_type(entry), *place)


def _run_options() -> onnxruntime.RunOptions:
    import onnxruntime

    return onnxruntime.RunOptions()


def _numpy_type(entry: onnxruntime.NodeArg) -> Any:
    """The NumPy type of an input or an output.

    Raises:
        BundleError: where NumPy has none.
    """
    if entry.type not in _NUMPY:
        raise BundleError(f"{entry.name} is a {entry.type}: expected one of {', '.join(_NUMPY)} on a GPU")
    return _NUMPY[entry.type]


def _known_before_a_run(session: onnxruntime.InferenceSession) -> bool:
    """Whether the outputs' shapes follow from the inputs': whether each named axis is one of an input, too."""
    named = {axis: 1 for entry in session.get_inputs() for axis in entry.shape if isinstance(axis, str)}
    return all(_shape(output.shape, named) is not None for output in session.get_outputs())


def _shape(declared: list[int | str | None], sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    """A ``declared`` shape with the ``sizes`` of its named axes; None where one is not known."""
    found = [axis if isinstance(axis, int) else sizes.get(str(axis)) for axis in declared]
    return tuple(n for n in found if n is not None) if None not in found else None
