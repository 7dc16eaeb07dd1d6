"""Read a model from one ONNX file without a copy of its weights in memory: the counterpart of :mod:`s2mlp_deploy.graph.writer`.

onnx and onnx_ir read the file as bytes, parse them to a message, and copy each weight out of that: three times the file. Here the
file is mapped, the message is parsed without the bytes of initializers, and those are arrays where they lie in the file.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""The wire types that ONNX files have: a number, 8 bytes, bytes of a stated length, 4 bytes."""


@dataclass(frozen=True)
class Span:
    """The place of an initializer's bytes in the file."""

    offset: int
    length: int


@dataclass(frozen=True)
class Structure:
    """A model whose initializers have empty ``raw_data`` where they have any, and the ``spans`` of that, in their order.

    A span is None for an initializer without ``raw_data``. ``content`` is the file.
    """

    model: onnx.ModelProto
    spans: tuple[Span | None, ...]
    content: mmap.mmap


def read_structure(path: Path) -> Structure:
    """The file at ``path``, in which nothing is looked at but the structure.

    Raises:
        OSError: where it cannot be read.
        DecodeError: where it is no ONNX file.
    """
    if not path.stat().st_size:
        raise DecodeError("the file is empty")
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    spans: list[Span | None] = []
    parts = bytearray()
    for field in _fields(content, 0, len(content)):
        if field.is_bytes(_GRAPH):
            graph = _without_weights(content, field, spans)
            parts += _tag(_GRAPH) + _varint(len(graph)) + graph
        else:
            parts += content[field.start : field.end]
    model = onnx.ModelProto()
    model.ParseFromString(bytes(parts))
    if len(spans) != len(model.graph.initializer):
        raise DecodeError("its initializers are not where they are said to be")
    return Structure(model, tuple(spans), content)


def load(path: Path) -> ir.Model:
    """The model at ``path``, whose initializers are arrays on the mapped file, and stay so while they are used.

    Raises:
        OSError: where it cannot be read.
        DecodeError: where it is no ONNX file.
        ValueError: where a weight has not the bytes that its shape takes.
    """
    found = read_structure(path)
    tensors = found.model.graph.initializer
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        return ir.load(path)  # which maps the file beside it
    model = ir.from_proto(found.model)
    for tensor, span in zip(tensors, found.spans, strict=True):
        if span is not None:
            dtype = ir.DataType(tensor.data_type)
            count = span.length // dtype.numpy().itemsize
            array = np.frombuffer(found.content, dtype.numpy(), count, span.offset).reshape(tuple(tensor.dims))
            model.graph.initializers[tensor.name].const_value = ir.Tensor(array, dtype=dtype, name=tensor.name)
    return model


@dataclass(frozen=True)
class _Field:
    """A field of a message: its number and wire type, where it starts and ends, and where its content begins."""

    number: int
    wire: int
    start: int
    begin: int
    end: int

    def is_bytes(self, number: int) -> bool:
        return (self.number, self.wire) == (number, _BYTES)


def _without_weights(content: Any, graph: _Field, spans: list[Span | None]) -> bytes:
    """The bytes of ``graph`` with empty ``raw_data`` in initializers, whose places are added to ``spans``."""
    parts = bytearray()
    for field in _fields(content, graph.begin, graph.end):
        if not field.is_bytes(_INITIALIZER):
            parts += content[field.start : field.end]
            continue
        tensor, span = bytearray(), None
        for own in _fields(content, field.begin, field.end):
            if own.is_bytes(_RAW_DATA):  # where there are several, the last counts
                span = Span(own.begin, own.end - own.begin)
                tensor += _tag(_RAW_DATA) + _varint(0)
            else:
                tensor += content[own.start : own.end]
        spans.append(span)
        parts += _tag(_INITIALIZER) + _varint(len(tensor)) + tensor
    return bytes(parts)


def _fields(content: Any, place: int, end: int) -> Iterator[_Field]:
    """The fields of the message from ``place`` to ``end``."""
    while place < end:
        start = place
        tag, place = _number(content, place, end)
        wire, begin = tag & 7, place
        if wire == _VARINT:
            _, place = _number(content, place, end)
        elif wire == _BYTES:
            length, begin = _number(content, place, end)
            place = begin + length
        elif wire in (_FIXED64, _FIXED32):
            place += 8 if wire == _FIXED64 else 4
        else:
            raise DecodeError(f"it has a field of wire type {wire}")
        if place > end:
            raise DecodeError("a field is longer than what holds it")
        yield _Field(tag >> 3, wire, start, begin, place)


def _number(content: Any, place: int, end: int) -> tuple[int, int]:
    """The varint at ``place``, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise DecodeError("a number has no end")


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _BYTES)


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])
