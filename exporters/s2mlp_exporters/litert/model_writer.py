"""Build a .tflite model with the object API of its schema: tensors, buffers, operators, one graph.

The bytes follow from the calls alone, in their order. Weights begin at multiples of 16 bytes, as the schema
demands and Python's bindings do not see to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from s2mlp_deploy.schema.array import Array
from s2mlp_exporters.litert.schema import IDENTIFIER, SCHEMA_VERSION, load_schema

ALIGNMENT = 16

ENTRY = "serving_default"
"""The name of a model's one signature, as LiteRT's tools expect it."""


@dataclass(frozen=True)
class Tensor:
    """A value of the graph.

    ``shape`` is that of one image where the batch is free; ``free`` is then the axis that grows with the batch, and None
    for a constant or where the batch is fixed. ``scales`` are those of integers that stand for numbers.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    free: int | None
    dtype: np.dtype[Any]
    scales: Scales | None = None

    def like(self, name: str, shape: Sequence[int], free: int | None) -> Result:
        """A result whose values are some of this tensor's."""
        return Result(name, tuple(shape), free, self.dtype, self.scales)


@dataclass(frozen=True)
class Scales:
    """How integers stand for numbers, (integer − ``zero_point``) · ``scale``: a scale for each entry of ``axis``, or one
    for all."""

    scale: Array
    axis: int = 0
    zero_point: int = 0

    def same(self, other: Scales | None) -> bool:
        """Whether integers stand for the same numbers with ``other``."""
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and (self.axis, self.zero_point) == (other.axis, other.zero_point)
        )


@dataclass(frozen=True)
class Result:
    """The tensor that an operator computes: its name, and shape, free axis, type and scales as in :class:`Tensor`."""

    name: str
    shape: tuple[int, ...]
    free: int | None
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float32))
    scales: Scales | None = None


@dataclass(frozen=True)
class Kind:
    """An operator of LiteRT's: its name in the schema, the version of its semantics, and its options."""

    name: str
    options: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1


class ModelWriter:
    """Collects a model's parts; :meth:`pack` gives the file's bytes."""

    def __init__(self) -> None:
        self._schema = load_schema()
        self._buffers: list[Any] = [self._schema.BufferT()]  # the first is the one of tensors without data
        self._tensors: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}
        self._operators: list[Any] = []
        self._metadata: list[Any] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def input(self, result: Result) -> Tensor:
        """Declare an input of the model."""
        tensor = self._tensor(result)
        self.inputs.append(tensor)
        return tensor

    def output(self, tensor: Tensor) -> None:
        """Declare ``tensor`` an output of the model."""
        self.outputs.append(tensor)

    def constant(self, name: str, array: Array, scales: Scales | None = None) -> Tensor:
        """Add a constant; integers may have ``scales``."""
        return self._tensor(Result(name, array.shape, None, array.dtype, scales), self._buffer(array))

    def operator(self, kind: Kind, inputs: Sequence[Tensor | None], result: Result) -> Tensor:
        """Append an operator that computes ``result`` from ``inputs``; None is an input that is left out."""
        schema, operator = self._schema, self._schema.OperatorT()
        tensor = self._tensor(result)
        operator.opcodeIndex = self._codes.setdefault((kind.name, kind.version), len(self._codes))
        operator.inputs = np.array([-1 if x is None else x.index for x in inputs], np.int32)
        operator.outputs = np.array([tensor.index], np.int32)
        if kind.options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind.options)
            operator.builtinOptions = getattr(schema, f"{kind.options}T")()
            for name, value in kind.values.items():
                setattr(operator.builtinOptions, name, value)
        self._operators.append(operator)
        return tensor

    def metadata(self, name: str, content: bytes) -> None:
        """Add an entry of the file's metadata."""
        entry = self._schema.MetadataT()
        entry.name, entry.buffer = name, self._buffer(np.frombuffer(content, np.uint8))
        self._metadata.append(entry)

    def pack(self, description: str) -> memoryview:
        """The file's bytes."""
        schema = self._schema
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.name, graph.tensors, graph.operators = "main", self._tensors, self._operators
        graph.inputs = np.array([x.index for x in self.inputs], np.int32)
        graph.outputs = np.array([x.index for x in self.outputs], np.int32)
        model.version, model.description, model.subgraphs = SCHEMA_VERSION, description, [graph]
        model.operatorCodes = [self._code(name, version) for name, version in self._codes]
        model.buffers, model.metadata, model.signatureDefs = self._buffers, self._metadata, [self._signature()]
        return pack(model)

    def _tensor(self, result: Result, buffer: int = 0) -> Tensor:
        tensor, made = self._schema.TensorT(), result
        tensor.name, tensor.buffer = made.name, buffer
        tensor.shape = np.array(made.shape, np.int32)
        if made.free is not None:
            signature = list(made.shape)
            signature[made.free] = -1
            tensor.shapeSignature = np.array(signature, np.int32)
        tensor.type = getattr(self._schema.TensorType, made.dtype.name.upper())
        tensor.hasRank = True
        if made.scales is not None:
            tensor.quantization = self._quantization(made.scales)
        self._tensors.append(tensor)
        return Tensor(len(self._tensors) - 1, made.name, tuple(made.shape), made.free, made.dtype, made.scales)

    def _quantization(self, scales: Scales) -> Any:
        parameters = self._schema.QuantizationParametersT()
        parameters.scale = scales.scale.astype(np.float32).reshape(-1)
        parameters.zeroPoint = np.full(scales.scale.size, scales.zero_point, np.int64)
        parameters.quantizedDimension = scales.axis
        return parameters

    def _buffer(self, array: Array) -> int:
        buffer = self._schema.BufferT()
        buffer.data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def _code(self, name: str, version: int) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode, code.version = getattr(self._schema.BuiltinOperator, name), version
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # the field that readers of a byte look at
        return code

    def _signature(self) -> Any:
        signature = self._schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = ENTRY, 0
        signature.inputs, signature.outputs = (
            [self._map(x) for x in tensors] for tensors in (self.inputs, self.outputs)
        )
        return signature

    def _map(self, tensor: Tensor) -> Any:
        entry = self._schema.TensorMapT()
        entry.name, entry.tensorIndex = tensor.name, tensor.index
        return entry


def pack(model: Any) -> memoryview:
    """The bytes of ``model``, an object of the schema, with aligned buffers; shapes and zero points that are equal lie there once."""
    import flatbuffers

    schema, known = load_schema(), dict[tuple[str, bytes], int]()

    class Sharing(flatbuffers.Builder):  # type: ignore[misc]
        def CreateNumpyVector(self, x: Array) -> int:  # noqa: N802 - the package's name
            if x.dtype == np.uint8:  # a buffer's content
                return int(super().CreateNumpyVector(x))
            key = x.dtype.name, x.tobytes()
            if key not in known:
                known[key] = super().CreateNumpyVector(x)
            return known[key]

    class Aligned(schema.BufferT):  # type: ignore[misc, name-defined]
        def Pack(self, builder: Any) -> Any:  # noqa: N802 - the schema's name
            if self.data is not None:
                builder.Prep(ALIGNMENT, len(self.data))
            return super().Pack(builder)

    for buffer in model.buffers:
        buffer.__class__ = Aligned
    # Room for everything, so that nothing is copied while it grows: weights, and some hundred bytes for any tensor or operator.
    graph = model.subgraphs[0]
    room = sum(ALIGNMENT + len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    builder = Sharing(room + 512 * (len(graph.tensors) + len(graph.operators) + 64))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return memoryview(builder.Bytes)[builder.Head() :]  # Output() would copy them
