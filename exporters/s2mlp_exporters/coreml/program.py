"""Read the program of a package: every operator with its arguments, and nothing that this project does not write.

Reading is the inspection: whatever is unexpected is refused, and nothing is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from s2mlp_deploy.formats.artifact_scan import Unexpected
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.tensor_entry import TensorEntry
from s2mlp_exporters.coreml.package import WEIGHTS_IN_PROGRAM
from s2mlp_exporters.coreml.toolkit import load
from s2mlp_exporters.coreml.weights import WeightFile

SPECIFICATION = 7
OPSET = "CoreML6"
"""Those of iOS 16 and macOS 13."""

COLOUR_SPACES = {1: 10, 3: 20}
"""ImageFeatureType's codes of grey and of RGB, by the number of channels."""

LARGEST_BYTES = 64 << 20
"""Of a program without its weights; S²-MLP-deep's takes less than one."""

OPERATORS: Mapping[str, frozenset[str]] = {
    "add": frozenset({"x", "y"}),
    "cast": frozenset({"x", "dtype"}),
    "concat": frozenset({"values", "axis", "interleave"}),
    "constexpr_affine_dequantize": frozenset({"quantized_data", "zero_point", "scale", "axis"}),
    "constexpr_cast": frozenset({"source_val", "output_dtype"}),
    "conv": frozenset({"x", "weight", "bias", "strides", "pad_type", "pad", "dilations", "groups"}),
    "gather": frozenset({"x", "indices", "axis", "batch_dims"}),
    "gelu": frozenset({"x", "mode"}),
    "layer_norm": frozenset({"x", "axes", "gamma", "beta", "epsilon"}),
    "linear": frozenset({"x", "weight", "bias"}),
    "matmul": frozenset({"x", "y", "transpose_x", "transpose_y"}),
    "mul": frozenset({"x", "y"}),
    "pad": frozenset({"x", "pad", "mode", "constant_val"}),
    "real_div": frozenset({"x", "y"}),
    "reduce_mean": frozenset({"x", "axes", "keep_dims"}),
    "reduce_sum": frozenset({"x", "axes", "keep_dims"}),
    "reshape": frozenset({"x", "shape"}),
    "sigmoid": frozenset({"x"}),
    "slice_by_index": frozenset({"x", "begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask"}),
    "softmax": frozenset({"x", "axis"}),
    "sub": frozenset({"x", "y"}),
    "transpose": frozenset({"x", "perm"}),
}
"""The operators that a translation writes, and their arguments."""

_MOST_AXES, _MOST_ITEMS = 8, 2**31

Argument: TypeAlias = Array | str | tuple[str, ...]
"""A constant (a word, where that is its type, as an array of one); the name of a value; the names of several."""


@dataclass(frozen=True)
class Operation:
    """An operator: its kind, its arguments by name, and the name, type and rank of its one output."""

    kind: str
    arguments: Mapping[str, Argument]
    output: str
    dtype: str


@dataclass(frozen=True)
class Program:
    """A program: what an app gives, the values it starts from and ends with, its operators, its metadata.

    ``inputs`` and ``outputs`` are as an app sees them, an image as bytes with channels last; ``image`` says that the input is one.
    """

    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    image: bool
    operations: tuple[Operation, ...]
    metadata: Mapping[str, str]


def read(program: Path, weights: Path) -> Program:
    """The program in the files ``program`` and ``weights``.

    Raises:
        Unexpected: where it is none of this project's.
        RuntimeMissingError: where coremltools is not here.
        OSError, google.protobuf.message.DecodeError: where it cannot be read.
    """
    if program.stat().st_size > LARGEST_BYTES:
        raise Unexpected(f"its program takes more than {LARGEST_BYTES >> 20} MB")
    spec = load("coremltools.proto.Model_pb2").Model()
    spec.ParseFromString(program.read_bytes())
    if spec.specificationVersion != SPECIFICATION or spec.WhichOneof("Type") != "mlProgram" or spec.isUpdatable:
        raise Unexpected(f"it is no program of version {SPECIFICATION} of Core ML's format")
    description, functions = spec.description, spec.mlProgram.functions
    if [*functions] != ["main"] or description.functions or description.state:
        raise Unexpected("it has other functions than main")
    main = functions["main"]
    if main.opset != OPSET or [*main.block_specializations] != [OPSET] or main.attributes:
        raise Unexpected(f"its function is not of the operators {OPSET}")
    block = main.block_specializations[OPSET]
    if len(main.inputs) != 1 or len(description.input) != 1 or block.inputs or block.attributes:
        raise Unexpected("it has not one input")
    reader = _Reader(WeightFile(weights))
    operations = reader.operations(block.operations, main.inputs[0])
    source = reader.entry(main.inputs[0])
    outputs = tuple(reader.outputs(block.outputs))
    image = description.input[0].type.WhichOneof("Type") == "imageType"
    inputs = (_image_entry(description.input[0], source) if image else _array_entry(description.input[0], source),)
    if [feature.name for feature in description.output] != [entry.name for entry in outputs]:
        raise Unexpected("its outputs are not those that it describes")
    return Program(inputs, outputs, image, operations, dict(description.metadata.userDefined))


def _image_entry(feature: Any, source: TensorEntry) -> TensorEntry:
    """The image that an app gives, for a program that starts from ``source``."""
    image = feature.type.imageType
    channels = {code: count for count, code in COLOUR_SPACES.items()}.get(image.colorSpace, 0)
    if image.WhichOneof("SizeFlexibility") or feature.type.isOptional:
        raise Unexpected("its image has no fixed size, or may be missing")
    if (feature.name, (1, channels, image.height, image.width)) != (source.name, source.shape):
        raise Unexpected("its image is not what its program takes")
    return TensorEntry(name=source.name, dtype="uint8", shape=(1, image.height, image.width, channels), layout="NHWC")


def _array_entry(feature: Any, source: TensorEntry) -> TensorEntry:
    array = feature.type.multiArrayType
    known = load("coremltools.proto.FeatureTypes_pb2").ArrayFeatureType.ArrayDataType
    kinds = {known.Value("FLOAT32"): "float32", known.Value("FLOAT16"): "float16"}
    free = len(array.shapeRange.sizeRanges) > 0 and array.shapeRange.sizeRanges[0].upperBound != array.shape[0]
    shape = tuple("any" if free and i == 0 else int(n) for i, n in enumerate(array.shape))
    if (feature.name, shape, kinds.get(array.dataType)) != (source.name, source.shape, source.dtype):
        raise Unexpected("its input is not what its program takes")
    if feature.type.isOptional or array.WhichOneof("defaultOptionalValue"):
        raise Unexpected("its input may be missing")
    return source


class _Reader:
    """Goes through the operators once; a value is known from the operator on that computes it."""

    def __init__(self, weights: WeightFile) -> None:
        self._weights = weights
        proto = load("coremltools.proto.MIL_pb2")
        names = {
            "float16": "FLOAT16",
            "float32": "FLOAT32",
            "int8": "INT8",
            "int32": "INT32",
            "bool": "BOOL",
            "str": "STRING",
        }
        self._types = {proto.DataType.Value(name): dtype for dtype, name in names.items()}
        self._constants: dict[str, Array] = {}
        self._known: dict[str, TensorEntry] = {}

    def operations(self, found: Any, source: Any) -> tuple[Operation, ...]:
        self._known[source.name] = self.entry(source)
        made = []
        for item in found:
            if item.blocks or len(item.outputs) != 1:
                raise Unexpected(f"its operator {item.type[:50]!r} has blocks, or not one output")
            name = item.outputs[0].name
            if name in self._known or name in self._constants or not name:
                raise Unexpected(f"the value {name[:100]!r} is computed more than once")
            if item.type == "const":
                self._constants[name] = self._value(item.attributes["val"])
            else:
                made.append(self._operation(item))
                self._known[name] = self.entry(item.outputs[0])
        return tuple(made)

    def outputs(self, names: Any) -> list[TensorEntry]:
        if not names or any(name not in self._known for name in names):
            raise Unexpected("an output is not computed")
        return [self._known[name] for name in names]

    def _operation(self, item: Any) -> Operation:
        known = OPERATORS.get(item.type)
        if known is None:
            raise Unexpected(f"its operator {item.type[:50]!r} is none that this project writes")
        arguments: dict[str, Argument] = {
            key: self._value(value) for key, value in item.attributes.items() if key != "name"
        }
        for key, argument in item.inputs.items():
            arguments[key] = self._argument(argument, several=(item.type, key) == ("concat", "values"))
        if unknown := arguments.keys() - known:
            raise Unexpected(f"its operator {item.type} has an argument {min(unknown)[:50]!r}")
        output = self.entry(item.outputs[0])
        return Operation(item.type, arguments, output.name, output.dtype)

    def _argument(self, argument: Any, *, several: bool) -> Argument:
        if any(binding.WhichOneof("binding") != "name" for binding in argument.arguments):
            raise Unexpected("an argument is not the name of a value")
        names = tuple(binding.name for binding in argument.arguments)
        if any(name not in self._known and name not in self._constants for name in names):
            raise Unexpected("an operator reads a value that was not computed before")
        if several:
            return names
        if len(names) != 1:
            raise Unexpected("an argument is not one value")
        return self._constants[names[0]] if names[0] in self._constants else names[0]

    def _value(self, value: Any) -> Array:
        dtype, shape = self._type(value.type)
        if value.WhichOneof("value") == "blobFileValue":
            if value.blobFileValue.fileName != WEIGHTS_IN_PROGRAM:
                raise Unexpected(f"its weights are to be read from {value.blobFileValue.fileName[:200]!r}")
            return self._weights.array(value.blobFileValue.offset, _fixed(shape), dtype)
        return _immediate(value.immediateValue, dtype, _fixed(shape))

    def entry(self, value: Any) -> TensorEntry:
        """Name, type and shape of a value; the axis of a batch is ``any``."""
        dtype, shape = self._type(value.type)
        return TensorEntry(name=value.name, dtype=dtype, shape=shape)

    def _type(self, kind: Any) -> tuple[str, tuple[int | str, ...]]:
        tensor = kind.tensorType
        dtype = self._types.get(tensor.dataType)
        if kind.WhichOneof("type") != "tensorType" or dtype is None or tensor.attributes:
            raise Unexpected("a value is of a type that none of this project's has")
        if tensor.rank != len(tensor.dimensions) or tensor.rank > _MOST_AXES:
            raise Unexpected("a value has another number of axes than it claims")
        shape: list[int | str] = []
        for dimension in tensor.dimensions:
            fixed = dimension.WhichOneof("dimension") == "constant"
            if not fixed and dimension.unknown.variadic:
                raise Unexpected("a value has any number of axes")
            shape.append(int(dimension.constant.size) if fixed else "any")
        if prod(n for n in shape if isinstance(n, int)) >= _MOST_ITEMS:
            raise Unexpected("a value has a shape that none has")
        return dtype, tuple(shape)


def _fixed(shape: tuple[int | str, ...]) -> tuple[int, ...]:
    fixed = tuple(n for n in shape if isinstance(n, int))
    if len(fixed) != len(shape):
        raise Unexpected("a constant has no shape")
    return fixed


_FIELDS = {"float32": "floats", "int32": "ints", "bool": "bools", "str": "strings", "float16": "bytes", "int8": "bytes"}


def _immediate(value: Any, dtype: str, shape: tuple[int, ...]) -> Array:
    """A constant that stands in the program itself."""
    field = _FIELDS[dtype]
    if value.WhichOneof("value") != "tensor" or value.tensor.WhichOneof("value") != field:
        raise Unexpected("a constant has no values of its type")
    values = getattr(value.tensor, field).values
    array: Array = np.frombuffer(values, dtype) if field == "bytes" else np.array([*values], dtype)
    if array.size != prod(shape):
        raise Unexpected("a constant has not as many values as its shape takes")
    return array.reshape(shape)
