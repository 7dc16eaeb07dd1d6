"""Run a .tflite model in LiteRT's interpreter, on the processor."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from s2mlp_deploy.errors import BundleError, RuntimeMissingError
from s2mlp_deploy.graph.layer import OUTPUT
from s2mlp_deploy.graph.metadata import PREFIX
from s2mlp_deploy.runtime.session import Description
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_deploy.system.machine import usable_cores
from s2mlp_deploy.system.quiet_stderr import quiet_stderr
from s2mlp_exporters.litert.model_writer import pack
from s2mlp_exporters.litert.schema import MODULE, litert_version, load, load_schema


class LiteRtSession:
    """The model at ``path``, loaded by LiteRT's interpreter, which can show what happens inside.

    An interpreter serves one thread at a time, so threads take turns. ``made_with`` is the version that wrote the model.

    Raises:
        RuntimeMissingError: where ai-edge-litert is not here, or lacks an operator of the model.
        BundleError: where it cannot load the model.
    """

    def __init__(self, path: Path, made_with: str, threads: int | None = None) -> None:
        self._path, self._made_with = path, made_with
        self._threads = threads or usable_cores()
        self._loaded: tuple[tuple[str, ...], Any] | None = (), self._load(())
        self._turn = Lock()

    def run(self, images: Array) -> Array:
        """The model's output (batch, classes) for ``images``, of the shape and type that its input has."""
        with self._turn:
            interpreter = self._interpreter(())
            self._invoke(interpreter, images)
            return _value(interpreter, interpreter.get_output_details()[0])

    def describe(self) -> Description:
        """Inputs and outputs of the model, and what the ONNX model carried along."""
        with self._turn:
            interpreter = self._interpreter(())
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        return Description(tuple(map(_entry, inputs)), tuple(map(_entry, outputs)), _metadata_in(self._path))

    def trace(self, images: Array, names: tuple[str, ...]) -> Mapping[str, Array]:
        """The values called ``names``, from a copy of the model that has them as outputs."""
        with self._turn:
            interpreter = self._interpreter(tuple(name for name in names if name != OUTPUT))
            self._invoke(interpreter, images)
            details = {detail["name"]: detail for detail in interpreter.get_output_details()}
            return {name: _value(interpreter, details[name]) for name in names}

    def _interpreter(self, more_outputs: tuple[str, ...]) -> Any:
        """The interpreter of the model with the values called ``more_outputs``, too: one is kept at a time."""
        if self._loaded is None or self._loaded[0] != more_outputs:
            self._loaded = None  # makes room
            self._loaded = more_outputs, self._load(more_outputs)
        return self._loaded[1]

    def _load(self, more_outputs: tuple[str, ...]) -> Any:
        interpreter = load(f"{MODULE}.interpreter").Interpreter
        source: dict[str, Any] = (
            {"model_content": _with_outputs(self._path, more_outputs)}
            if more_outputs
            else {"model_path": str(self._path)}
        )
        try:
            with quiet_stderr():  # LiteRT prints, as it loads a model, which delegate it made
                loaded = interpreter(**source, num_threads=self._threads)
                loaded.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise self._cannot_load(error) from error
        return loaded

    def _cannot_load(self, error: Exception) -> Exception:
        here, reason = litert_version(), _plain(error)
        if "Didn't find op" in reason or "not supported by this" in reason:
            return RuntimeMissingError(
                f"ai-edge-litert {here} does not have an operator of {self._path} ({reason}), which was made with "
                f"{self._made_with}: install that version, or a later one"
            )
        return BundleError(
            f"LiteRT {here} cannot load the model {self._path}, which was made with {self._made_with}: {reason}"
        )

    def _invoke(self, interpreter: Any, images: Array) -> None:
        (entry,) = interpreter.get_input_details()
        images = _as_stored(np.ascontiguousarray(images), entry)
        try:
            if tuple(entry["shape"]) != images.shape:
                interpreter.resize_tensor_input(entry["index"], images.shape, strict=True)
                interpreter.allocate_tensors()
            interpreter.set_tensor(entry["index"], images)
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise BundleError(
                f"LiteRT cannot run the model on an input of {json.dumps(images.shape)}: {_plain(error)}"
            ) from error


def _as_stored(images: Array, entry: Mapping[str, Any]) -> Array:
    """``images`` in the type of the model's input: int8 as its scale says, where that is int8."""
    if entry["dtype"] != np.int8:
        return images.astype(entry["dtype"], copy=False)
    scale, zero_point = entry["quantization"]
    integers: Array = np.clip(np.rint(images / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    return integers


def _value(interpreter: Any, entry: Mapping[str, Any]) -> Array:
    """A copy of a tensor's values: the numbers that int8 stands for, where it is int8."""
    found: Array = interpreter.get_tensor(entry["index"])
    if found.dtype != np.int8:
        return found
    scale, zero_point = entry["quantization"]
    restored: Array = (found.astype(np.float32) - zero_point) * np.float32(scale)
    return restored


def _entry(detail: Mapping[str, Any]) -> TensorEntry:
    shape = tuple("any" if n < 0 else int(n) for n in detail["shape_signature"])
    # A session takes and gives the numbers that int8 stands for.
    dtype = np.float32 if detail["dtype"] == np.int8 else detail["dtype"]
    return TensorEntry(name=detail["name"], dtype=np.dtype(dtype).name, shape=shape)


def _with_outputs(path: Path, names: tuple[str, ...]) -> bytes:
    """The model at ``path`` with the values called ``names`` as outputs, too."""
    schema = load_schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    (graph,) = model.subgraphs
    places = {tensor.name.decode(): index for index, tensor in enumerate(graph.tensors)}
    if unknown := [name for name in names if name not in places]:
        raise BundleError(f"{path} has no value called {unknown[0]}")
    graph.outputs = np.array([*graph.outputs, *(places[name] for name in names)], np.int32)
    return bytes(pack(model))


def _metadata_in(path: Path) -> dict[str, str]:
    """This project's metadata in the model at ``path``, by the names that the ONNX model has them under."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        model = load_schema().Model.GetRootAs(content)
        entries = [model.Metadata(i) for i in range(model.MetadataLength())]
        places = {entry.Name().decode("utf-8", "replace"): entry.Buffer() for entry in entries}
        return {
            name: model.Buffers(place).DataAsNumpy().tobytes().decode("utf-8", "replace")
            for name, place in places.items()
            if name.startswith(PREFIX)
        }


def _plain(error: Exception) -> str:
    """LiteRT's message in one line."""
    return " ".join(str(error).split())
