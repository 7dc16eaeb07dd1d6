"""Run a .pte program in ExecuTorch's runtime, on the processor."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet

from s2mlp_deploy.errors import BundleError, UsageError
from s2mlp_deploy.graph.layer import INPUT
from s2mlp_deploy.graph.metadata import PREFIX
from s2mlp_deploy.runtime.session import Description
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_deploy.system.quiet_stderr import quiet_stderr
from s2mlp_exporters.executorch.lower import FORWARD
from s2mlp_exporters.executorch.packages import executorch_version, load
from s2mlp_exporters.executorch.settings import Settings

RUNTIME = "executorch.extension.pybindings._C"
"""The runtime alone: the public module beside it loads the whole compiler, and prints its warnings."""

_loaded: WeakSet[ExecuTorchSession] = WeakSet()
"""The sessions in this process, whose programs keep the threads that they were loaded with."""


class ExecuTorchSession:
    """The program at ``path``, loaded by ExecuTorch's runtime.

    A method serves one thread at a time, so threads take turns.

    Raises:
        RuntimeMissingError: where ExecuTorch or torch is not here.
        BundleError: where it cannot load the program.
        UsageError: where other programs run on another number of threads.
    """

    def __init__(self, path: Path, settings: Settings, threads: int | None = None) -> None:
        self._path, self._settings = path, settings
        self._runtime = load(RUNTIME)
        self._turn = Lock()
        with quiet_stderr():  # the runtime prints how it counts processors; its threads, too, are the process's
            _set_threads(self._runtime, threads)
            try:
                # Without this level of checks, damaged tables are followed.
                check = self._runtime.Verification.InternalConsistency
                self._program = self._runtime._load_program(str(path), program_verification=check)
                self._method = self._program.load_method(FORWARD)
            except RuntimeError as error:
                raise BundleError(
                    f"ExecuTorch {executorch_version()} cannot load the program {path}, which was made with "
                    f"{settings.runtime_version}: {_plain(error)}"
                ) from error
        _loaded.add(self)

    def run(self, images: Array) -> Array:
        """The program's output (batch, classes) for ``images``, of the shape and type that its input has.

        Raises:
            UsageError: for a larger batch than the program was made for.
            BundleError: for images of another shape.
        """
        import torch

        largest = self._settings.max_batch
        if largest is not None and len(images) > largest:
            raise UsageError(
                f"a batch of {len(images)}: the program was made for up to {largest}; export it with --max-batch {len(images)}"
            )
        with self._turn:
            try:
                (out,) = self._method([torch.tensor(images)])
            except RuntimeError as error:
                raise BundleError(
                    f"ExecuTorch cannot run the program on an input of {json.dumps(images.shape)}: {_plain(error)}"
                ) from error
            found: Array = out.numpy()
            return found

    def describe(self) -> Description:
        """Inputs and outputs of the program, which have no names in it, and what the ONNX model carried along."""
        with self._turn:
            meta = self._method.method_meta()
            free = self._settings.max_batch is not None
            inputs = tuple(_entry(INPUT, meta.input_tensor_meta(i), free) for i in range(meta.num_inputs()))
            outputs = tuple(
                _entry(self._settings.output, meta.output_tensor_meta(i), free) for i in range(meta.num_outputs())
            )
            names = map(self._program.get_method_name, range(self._program.num_methods()))
            texts = {name: self._program.load_method(name)([])[0] for name in names if name.startswith(PREFIX)}
        return Description(inputs, outputs, texts)


def _set_threads(runtime: Any, threads: int | None) -> None:
    """Let the runtime have ``threads`` threads, which programs that are loaded keep using."""
    now = runtime._threadpool_get_thread_count()
    if threads in (None, now):
        return
    if len(_loaded):
        raise UsageError(
            f"--threads {threads}: ExecuTorch has one set of threads for a process, and other programs run on {now}: run this one in "
            "a process of its own"
        )
    runtime._unsafe_reset_threadpool(threads)


_TYPES = {0: "uint8", 6: "float32"}
"""Types of elements, as PyTorch numbers them."""


def _entry(name: str, info: Any, free: bool) -> TensorEntry:
    shape = tuple(info.sizes())
    return TensorEntry(
        name=name, dtype=_TYPES.get(info.dtype(), "unknown"), shape=("any", *shape[1:]) if free else shape
    )


def _plain(error: Exception) -> str:
    """ExecuTorch's message in one line."""
    return " ".join(str(error).split())[:300]
