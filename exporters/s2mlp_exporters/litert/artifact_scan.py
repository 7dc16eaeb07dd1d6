"""Scan a .tflite file before LiteRT loads it: one graph of the operators that this project writes, and whole weights.

As onnx_scan does for ONNX files. LiteRT verifies the offsets of the FlatBuffer itself; here the indices and sizes that
they lead to are compared with what there is.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf, prod
from pathlib import Path
from typing import Any

from s2mlp_deploy.formats.artifact_scan import Unexpected, inspecting
from s2mlp_exporters.litert import tflite_metadata
from s2mlp_exporters.litert.schema import IDENTIFIER, SCHEMA_VERSION, load_schema
from s2mlp_exporters.litert.vela import NPU_OPERATOR

OPERATORS: dict[str, tuple[int, int | None]] = {
    "ADD": (2, 2),
    "BATCH_MATMUL": (1, 2),
    "CAST": (1, 1),
    "CONCATENATION": (2, None),
    "CONV_2D": (3, 3),
    "DEPTHWISE_CONV_2D": (3, 3),
    "DEQUANTIZE": (3, 1),
    "DIV": (1, 2),
    "FULLY_CONNECTED": (12, 3),
    "GATHER": (2, 2),
    "GELU": (1, 1),
    "LOGISTIC": (2, 1),
    "MEAN": (2, 2),
    "MUL": (2, 2),
    "PAD": (2, 2),
    "QUANTIZE": (1, 1),
    "RESHAPE": (1, 2),
    "RSQRT": (2, 1),
    "SLICE": (2, 3),
    "SOFTMAX": (2, 1),
    "SQUARED_DIFFERENCE": (1, 2),
    "SUB": (2, 2),
    "SUM": (2, 2),
    "TRANSPOSE": (2, 2),
}
"""The operators that a translation writes: the latest version of each, and its inputs; None for any number of them.

LiteRT reads inputs that an operator does not have, or that are left out, without a check.
"""

_PRODUCTS = {"CONV_2D": (0, -1), "DEPTHWISE_CONV_2D": (-1, -1), "FULLY_CONNECTED": (0, -1)}
"""The operators with weights: the axes of outputs and of inputs in them. A bias that is too short would be read beyond its end."""

_ITEM_BYTES = {"FLOAT32": 4, "FLOAT16": 2, "INT8": 1, "UINT8": 1, "INT32": 4}

_LARGEST = 2**31
"""Elements of a tensor; LiteRT counts them in 32 bits."""

_MOST_AXES = 8

_LARGEST_MULTIPLIER = 2.0**18
"""Of what int8 operators multiply by, the product of the scales that they read over the one that they write: beyond 2¹⁹, LiteRT ends
the process."""

_DAMAGE = (OSError, struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError)
"""Errors of Python's FlatBuffers on a file that is none."""


def inspect(path: Path) -> None:
    """Refuse the file at ``path`` where it could do more than compute.

    Raises:
        BundleError: with the reason.
        RuntimeMissingError: where ai-edge-litert, whose bindings read the file, is not installed.
    """
    schema = load_schema()
    with inspecting(path, *_DAMAGE), path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            _Reader(schema, content).check()
        finally:
            with suppress(BufferError):  # a traceback holds a part; it is closed with that
                content.close()


def inspect_compiled(path: Path) -> None:
    """Refuse the file at ``path``, which nothing here loads, where it is none that Vela makes of one of this project's.

    Raises:
        BundleError: with the reason.
    """
    with inspecting(path, *_DAMAGE):
        content = path.read_bytes()
        if content[4:8] != IDENTIFIER:
            raise Unexpected("it is no .tflite file")
        model = load_schema().Model.GetRootAs(content)
        if model.Version() != SCHEMA_VERSION or model.SubgraphsLength() != 1:
            raise Unexpected("it has another version of the format, or more than one graph")
        names = {getattr(load_schema().BuiltinOperator, name) for name in OPERATORS}
        for code in (model.OperatorCodes(i) for i in range(min(model.OperatorCodesLength(), len(content)))):
            number, custom = _number(code), code.CustomCode()
            if custom not in (None, NPU_OPERATOR) or (custom is None and number not in names):
                raise Unexpected(f"its operator {number} is none that this project or Vela writes")


class _Reader:
    """Goes through the file once."""

    def __init__(self, schema: Any, content: Any) -> None:
        if content[4:8] != IDENTIFIER:
            raise Unexpected("it is no .tflite file")
        self._schema, self._content, self._size = schema, content, len(content)
        self._model = schema.Model.GetRootAs(content)
        self._names = {getattr(schema.BuiltinOperator, name): name for name in OPERATORS}

    def check(self) -> None:
        model = self._model
        if model.Version() != SCHEMA_VERSION or model.SubgraphsLength() != 1:
            raise Unexpected("it has another version of the format, or more than one graph")
        if model.ExternalBufferGroupsLength() or model.ExternalBuffersLength():
            raise Unexpected("its weights are to be read from other files")
        for code in self._each(model.OperatorCodes, model.OperatorCodesLength()):
            self._check_code(code)
        for buffer in self._each(model.Buffers, model.BuffersLength()):
            if buffer.Offset() or buffer.Size():
                raise Unexpected("it has weights outside of its tables")
        graph = model.Subgraphs(0)
        known = {
            i for i, tensor in enumerate(self._each(graph.Tensors, graph.TensorsLength())) if self._has_data(tensor)
        }
        self._check_order(graph, known)
        for entry in self._each(model.Metadata, model.MetadataLength()):
            self._index(entry.Buffer(), model.BuffersLength(), "buffer")
            if not (_text(entry.Name()) and model.Buffers(entry.Buffer()).DataLength()):
                raise Unexpected("its metadata have no name, or say nothing")
        self._check_description(graph)
        for signature in self._each(model.SignatureDefs, model.SignatureDefsLength()):
            self._check_signature(signature, graph)

    def _check_description(self, graph: Any) -> None:
        """Refuse a description for other tools that is not the one of this model, and an archive of other files."""
        model, entries = self._model, {}
        for entry in self._each(model.Metadata, model.MetadataLength()):
            entries[_text(entry.Name())] = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
        if tflite_metadata.ENTRY not in entries:
            return  # an earlier release wrote none
        if (graph.InputsLength(), graph.OutputsLength()) != (1, 1):
            raise Unexpected("it has more than one input or output")
        x, y = graph.Tensors(graph.Inputs(0)), graph.Tensors(graph.Outputs(0))
        kind = "uint8" if x.Type() == self._schema.TensorType.UINT8 else "float32"
        own = {name: _text(content) for name, content in entries.items() if name != tflite_metadata.ENTRY}
        facts = tflite_metadata.facts(own, (_text(x.Name()), kind), (_text(y.Name()), self._shape_of(y)[-1]))
        if facts is None or entries[tflite_metadata.ENTRY] != tflite_metadata.flatbuffer(facts):
            raise Unexpected("its description for other tools is not that of the model")
        begin = self._size - len(tflite_metadata.archive(facts, 0))
        if begin < 0 or self._content[begin:] != tflite_metadata.archive(facts, begin):
            raise Unexpected("its archive of labels is not that of the model")

    def _name_of(self, operator: Any) -> str:
        """The operator's kind."""
        return self._names[_number(self._model.OperatorCodes(operator.OpcodeIndex()))]

    def _check_code(self, code: Any) -> None:
        number = _number(code)
        name = self._names.get(number)
        if name is None or code.CustomCode() is not None:
            raise Unexpected(f"its operator {number} is none that this project writes")
        if not 1 <= code.Version() <= OPERATORS[name][0]:
            raise Unexpected(f"its operator {name} is of version {code.Version()}")

    def _check_signature(self, signature: Any, graph: Any) -> None:
        """Refuse a signature without names, or of tensors that there are not."""
        names = [signature.SignatureKey()]
        for entry in (
            *self._each(signature.Inputs, signature.InputsLength()),
            *self._each(signature.Outputs, signature.OutputsLength()),
        ):
            self._index(entry.TensorIndex(), graph.TensorsLength(), "tensor")
            names.append(entry.Name())
        if signature.SubgraphIndex() or not all(map(_text, names)):
            raise Unexpected("its signature has no names, or is of another graph")

    def _has_data(self, tensor: Any) -> bool:
        """Whether the tensor is a constant.

        Raises:
            Unexpected: where its type, its shape and its data do not fit one another.
        """
        types = {getattr(self._schema.TensorType, name): size for name, size in _ITEM_BYTES.items()}
        shape = [tensor.Shape(i) for i in range(self._count(tensor.ShapeLength(), _MOST_AXES))]
        name = repr(_text(tensor.Name())[:100])
        if name == "''":
            raise Unexpected("a tensor has no name")
        if tensor.Type() not in types or min(shape, default=0) < 0 or prod(shape) >= _LARGEST:
            raise Unexpected(f"the tensor {name} has a type or a shape that none has")
        signature = [tensor.ShapeSignature(i) for i in range(self._count(tensor.ShapeSignatureLength(), _MOST_AXES))]
        fits = [now in (-1, then) for now, then in zip(signature, shape, strict=False)]
        if signature and not (len(signature) == len(shape) and all(fits)):
            raise Unexpected(f"the tensor {name} has two shapes that do not agree")
        if tensor.IsVariable() or tensor.Sparsity() is not None or tensor.ExternalBuffer():
            raise Unexpected(f"the tensor {name} is kept from run to run, or lies in other forms")
        self._index(tensor.Buffer(), self._model.BuffersLength(), "buffer")
        size = self._model.Buffers(tensor.Buffer()).DataLength()
        if size and (size != prod(shape) * types[tensor.Type()] or signature):
            raise Unexpected(f"the tensor {name} has {size} bytes, and its shape takes others")
        self._check_scales(tensor, shape, name, constant=bool(size))
        return bool(size)

    def _check_scales(self, tensor: Any, shape: list[int], name: str, *, constant: bool) -> None:
        """Refuse integers whose scales are missing, or that operators would divide by zero with."""
        scales, in_bytes = tensor.Quantization(), tensor.Type() == self._schema.TensorType.INT8
        if scales is None:
            if in_bytes:
                raise Unexpected(f"the tensor {name} has no scales, and its type takes some")
            return
        axis, count = scales.QuantizedDimension(), scales.ScaleLength()
        rows = shape[axis] if constant and 0 <= axis < len(shape) else 1
        if (
            scales.DetailsType()
            or count not in (*(() if in_bytes else (0,)), 1, rows)
            or scales.ZeroPointLength() != count
        ):
            raise Unexpected(f"the tensor {name} has {count} scales, and its shape takes others")
        if not all(0 < scales.Scale(i) < inf and -128 <= scales.ZeroPoint(i) <= 127 for i in range(count)):
            raise Unexpected(f"the tensor {name} has a scale or a zero point that none has")

    def _check_order(self, graph: Any, known: set[int]) -> None:
        """Refuse operators that read what was not computed before, or write what is there already."""
        tensors, codes = graph.TensorsLength(), self._model.OperatorCodesLength()
        for i in self._items(graph.Inputs, graph.InputsLength()):
            self._take(i, tensors, known)
        for operator in self._each(graph.Operators, graph.OperatorsLength()):
            self._index(operator.OpcodeIndex(), codes, "operator")
            self._check_inputs(operator)
            if operator.CustomOptionsLength() or operator.IntermediatesLength() or operator.LargeCustomOptionsSize():
                raise Unexpected("an operator has options that none of this project's has")
            for i in self._items(operator.Inputs, operator.InputsLength()):
                if i != -1 and i not in known:
                    raise Unexpected("an operator reads a tensor that was not computed before")
            for i in self._items(operator.Outputs, operator.OutputsLength()):
                self._take(i, tensors, known)
            self._check_product(graph, operator)
            self._check_multiplier(graph, operator)
        for i in self._items(graph.Outputs, graph.OutputsLength()):
            if i not in known:
                raise Unexpected("an output is not computed")

    def _check_inputs(self, operator: Any) -> None:
        """Refuse an operator that has not as many inputs and outputs as it reads and writes."""
        name = self._name_of(operator)
        inputs = list(self._items(operator.Inputs, operator.InputsLength()))
        wanted = OPERATORS[name][1] or max(1, len(inputs))
        given = inputs[:2] if name in _PRODUCTS else inputs  # a layer may have no bias
        if len(inputs) != wanted or -1 in given or operator.OutputsLength() != 1:
            raise Unexpected(f"an operator {name} has not the inputs that it reads")

    def _check_product(self, graph: Any, operator: Any) -> None:
        """Refuse a layer whose input, weights, bias and output do not fit one another."""
        axes = _PRODUCTS.get(self._name_of(operator))
        if axes is None:
            return
        x, weight, y = (self._shape(graph, i) for i in (operator.Inputs(0), operator.Inputs(1), operator.Outputs(0)))
        bias = self._shape(graph, operator.Inputs(2)) if operator.Inputs(2) != -1 else [weight[axes[0]]]
        if x[-1] != weight[axes[1]] or not y[-1] == weight[axes[0]] == prod(bias):
            raise Unexpected("a layer has weights of another shape than its input, output or bias")

    def _check_multiplier(self, graph: Any, operator: Any) -> None:
        """Refuse an operator on int8 whose integers would be multiplied by more than LiteRT's fixed-point numbers hold."""
        written = self._scales_of(graph.Tensors(operator.Outputs(0)))
        read = [
            max(scales)
            for i in self._items(operator.Inputs, operator.InputsLength())
            if i != -1 and (scales := self._scales_of(graph.Tensors(i)))
        ]
        if written and read and max(*read, prod(read)) > _LARGEST_MULTIPLIER * min(written):
            raise Unexpected("an operator reads and writes int8 of scales that are too far apart")

    def _scales_of(self, tensor: Any) -> list[float]:
        """The scales of an int8 tensor; none of another."""
        scales = tensor.Quantization()
        if scales is None or tensor.Type() != self._schema.TensorType.INT8:
            return []
        return [scales.Scale(i) for i in range(scales.ScaleLength())]

    def _shape(self, graph: Any, index: int) -> list[int]:
        """The shape of a tensor that has one axis at least."""
        self._index(index, graph.TensorsLength(), "tensor")
        return self._shape_of(graph.Tensors(index))

    @staticmethod
    def _shape_of(tensor: Any) -> list[int]:
        return [tensor.Shape(i) for i in range(tensor.ShapeLength())] or [0]

    def _take(self, index: int, tensors: int, known: set[int]) -> None:
        self._index(index, tensors, "tensor")
        if index in known:
            raise Unexpected("a tensor is written more than once")
        known.add(index)

    def _index(self, index: int, count: int, what: str) -> None:
        if not 0 <= index < count:
            raise Unexpected(f"it refers to the {what} {index} of {count}")

    def _each(self, item: Callable[[int], Any], count: int) -> Iterator[Any]:
        return (item(i) for i in range(self._count(count, self._size // 4)))

    def _items(self, item: Callable[[int], int], count: int) -> Iterator[int]:
        return (int(item(i)) for i in range(self._count(count, self._size // 4)))

    def _count(self, count: int, most: int) -> int:
        """``count`` items of a vector, as far as the file can hold them."""
        if count > most:
            raise Unexpected(f"it claims a list of {count:,} items")
        return count


def _number(code: Any) -> int:
    """The operator that ``code`` stands for: as LiteRT does, the larger of the number and its deprecated form of one byte."""
    return int(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))


def _text(name: bytes | None) -> str:
    """A name in the file; UnicodeDecodeError, which is damage, where it is none."""
    return (name or b"").decode()
