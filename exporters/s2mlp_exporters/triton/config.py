"""A model's configuration for Triton Inference Server: ``config.pbtxt``, in protobuf's text format.

The schema is ModelConfig in triton-inference-server/common, protobuf/model_config.proto; the fields' meaning is in
docs/user_guide/model_configuration.md of triton-inference-server/server.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import onnx
from google.protobuf.message import DecodeError
from pydantic import Field

from s2mlp_deploy.schema.strict_model import StrictModel
from s2mlp_exporters.triton.options import Backend, Size

VERSION = "1"
"""The directory of the model's only version. The configuration pins it, so that no other is served beside it."""

FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
"""What each backend calls a model."""

_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.INT64: "TYPE_INT64",
}


class Serving(StrictModel):
    """How Triton is to serve a model.

    ``max_batch`` is 0 where Triton is to leave batches alone. Of requests that wait, it makes batches: of a size in
    ``preferred_batch`` where that is possible, else as large as they come, waiting up to ``queue_delay_us`` for more.
    """

    backend: Backend
    max_batch: Annotated[int, Field(ge=0, lt=2**16)]
    preferred_batch: tuple[Size, ...]
    queue_delay_us: Annotated[int, Field(ge=0, lt=2**31)]
    kind: Literal["cpu", "gpu"]
    instances: Size


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model; ``shape`` has names for what is free."""

    name: str
    type: str
    shape: tuple[int | str, ...]

    def dims(self, *, batched: bool) -> list[int]:
        """The shape as Triton has it: -1 for what is free, and without the batch where Triton makes batches."""
        return [n if isinstance(n, int) else -1 for n in self.shape[1 if batched else 0 :]]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def is_free_batch(self) -> bool:
        """Whether all inputs and outputs start with the same free axis, so that requests can be put together."""
        first = {tensor.shape[:1] for tensor in (*self.inputs, *self.outputs)}
        return len(first) == 1 and all(shape and isinstance(shape[0], str) for shape in first)


def signature(path: Path) -> Signature:
    """The inputs and outputs of the ONNX file at ``path``.

    Raises:
        ValueError: where it is none, or a type or a shape is not one that a configuration can state.
    """
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise ValueError(f"it is not an ONNX file ({error})") from error
    return Signature(tuple(map(_tensor, graph.input)), tuple(map(_tensor, graph.output)))


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    found = value.type.tensor_type
    if found.elem_type not in _TYPES:
        raise ValueError(f"{value.name} has the type {onnx.TensorProto.DataType.Name(found.elem_type)}")
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in found.shape.dim)
    if not shape:
        raise ValueError(f"{value.name} has no axes")
    return Tensor(value.name, _TYPES[found.elem_type], shape)


def text(model: Signature, serving: Serving, *, classes: int | None, labels: str) -> str:
    """``config.pbtxt``. Outputs of one value for each of ``classes`` (None: unnamed) refer to the file ``labels``."""
    batched = serving.max_batch > 0
    lines = [f"backend: {_quoted(serving.backend)}", f"max_batch_size: {serving.max_batch}"]
    lines += [line for tensor in model.inputs for line in _entry("input", tensor, batched=batched)]
    for tensor in model.outputs:
        named = classes is not None and tensor.dims(batched=True) == [classes]
        lines += _entry("output", tensor, batched=batched, labels=labels if named else None)
    lines += _block("instance_group", [f"kind: KIND_{serving.kind.upper()}", f"count: {serving.instances}"])
    if serving.max_batch > 1:
        preferred = [f"preferred_batch_size: {_list(serving.preferred_batch)}"] if serving.preferred_batch else []
        lines += _block("dynamic_batching", [*preferred, f"max_queue_delay_microseconds: {serving.queue_delay_us}"])
    lines += [f"version_policy {{ specific {{ versions: [ {VERSION} ] }} }}"]
    lines += [f"default_model_filename: {_quoted(FILES[serving.backend])}"]
    return "\n".join(lines) + "\n"


def _entry(field: str, tensor: Tensor, *, batched: bool, labels: str | None = None) -> list[str]:
    content = [
        f"name: {_quoted(tensor.name)}",
        f"data_type: {tensor.type}",
        f"dims: {_list(tensor.dims(batched=batched))}",
    ]
    return _block(field, [*content, *([f"label_filename: {_quoted(labels)}"] if labels else [])])


def _block(field: str, content: Sequence[str]) -> list[str]:
    return [f"{field} {{", *(f"  {line}" for line in content), "}"]


def _list(values: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, values))} ]"


def _quoted(name: str) -> str:
    return json.dumps(name)
