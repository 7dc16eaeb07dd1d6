"""Scan a part of a program that XNNPACK computes: its tables, which XNNPACK's own reader does not verify.

Source: backends/xnnpack/serialization/schema.fbs in ExecuTorch.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from s2mlp_deploy.formats.artifact_scan import Unexpected
from s2mlp_exporters.executorch.flatbuffer import Table

_NONE = 2**32 - 1
"""The identifier that stands for no value."""

_MOST_AXES = 6

_ITEM_BYTES = {1: 4, 3: 1, 6: 1, 7: 4, 9: 1}
"""Bytes of an element: float32, int8 with one scale, int8 and int32 with a scale for each channel, int8 rounded at run time."""


@dataclass(frozen=True)
class _Kind:
    """A kind of node: which fields hold identifiers of values, which of those may be none, and which hold one number for each axis."""

    values: tuple[int, ...]
    optional: tuple[int, ...] = ()
    lists: tuple[int, ...] = ()


_ONE, _TWO = _Kind((0, 1)), _Kind((0, 1, 2))
_CONVOLUTION = _Kind((15, 16, 18), optional=(17,))

NODES: Mapping[int, _Kind] = {
    1: _TWO,  # add
    2: _Kind((0, 1, 3), optional=(2,)),  # fully connected
    3: _ONE,  # softmax
    4: _ONE,  # sigmoid
    5: _Kind((2, 3), lists=(1,)),  # transpose
    7: _CONVOLUTION,
    8: _TWO,  # divide
    10: _Kind((3, 4), lists=(0, 1)),  # pad
    13: _CONVOLUTION,  # depthwise
    15: _TWO,  # multiply
    16: _TWO,  # subtract
    18: _ONE,  # convert
    19: _ONE,  # mean over a map
    20: _Kind((2, 3), lists=(1,)),  # reshape
    32: _Kind((1, 2, 5)),  # concatenate 2 to 4, and 5
    33: _Kind((1, 2, 3, 5)),
    34: _Kind((1, 2, 3, 4, 5)),
    35: _Kind((3, 4), lists=(1, 2)),  # slice
    37: _TWO,  # batches of matrix products
    38: _Kind((1, 2, 3, 4, 5, 7)),
    40: _ONE,  # 1/√x
    42: _ONE,  # GELU
    46: _ONE,  # copy
}
"""The nodes that this project's graphs become, by their number in the schema."""


def scan(blob: memoryview, named: Mapping[str, int]) -> int:
    """How many values the part in ``blob`` takes and gives; ``named`` are the sizes of the program's named constants.

    Raises:
        Unexpected: where XNNPACK would read what is not there.
    """
    if bytes(blob[4:8]) != b"XH00":
        raise Unexpected("a part for XNNPACK has another header")
    place, size, first, constants = struct.unpack_from("<IIIQ", blob, 10)
    if place + size > len(blob) or first + constants > len(blob):
        raise Unexpected("a part for XNNPACK is larger than its place in the file")
    graph = Table.root(blob[place : place + size], b"XN01")
    known = _Part(graph, constants, named)
    known.check()
    return graph.length(4) + graph.length(5)


@dataclass(frozen=True)
class _Part:
    graph: Table
    constants_bytes: int
    named: Mapping[str, int]

    def check(self) -> None:
        graph = self.graph
        if graph.length(6) or graph.length(7) or graph.text(0) != "0":
            raise Unexpected("a part for XNNPACK has another version, or weights in its tables")
        sizes = [self._constant_bytes(item, i) for i, item in enumerate(graph.tables(8))]
        values = list(graph.tables(2))
        shapes = dict(self._value(value, sizes) for value in values)
        outside = [*graph.numbers(4), *graph.numbers(5)]
        places = sorted(place for value in values if (place := _tensor(value).count(4)) != _NONE)
        if len(shapes) != len(values) or not shapes.keys() >= {*outside} or len({*outside}) != len(outside):
            raise Unexpected("a part for XNNPACK has values twice, or takes others than it has")
        if not graph.count(3) == len(outside) == len(places) or places != list(range(len(places))):
            raise Unexpected("a part for XNNPACK takes and gives other values than it names")
        for node in graph.tables(1):
            self._check_node(node, shapes)

    def _constant_bytes(self, item: Table, index: int) -> int:
        """The bytes of a constant, which lies in the part or has a name in the program."""
        offset, size, name = item.count(0, "Q"), item.count(1, "Q"), item.text(2)
        if not index:
            return 0
        found = self.named.get(name, -1) if name else self.constants_bytes - offset
        if size > found or bool(name) != (offset == 2**64 - 1):
            raise Unexpected("a constant for XNNPACK lies outside of the file")
        return size

    def _value(self, value: Table, sizes: list[int]) -> tuple[int, tuple[int, ...]]:
        """A value's identifier and shape."""
        tensor = _tensor(value)
        shape, item_bytes = tensor.numbers(2), _ITEM_BYTES.get(tensor.count(0, "h"))
        if item_bytes is None or tensor.count(1) != len(shape) or len(shape) > _MOST_AXES:
            raise Unexpected("a value for XNNPACK has a type or a shape that none has")
        place = tensor.count(3)
        if place and (place >= len(sizes) or sizes[place] < prod(shape) * item_bytes):
            raise Unexpected("a value for XNNPACK has fewer bytes than its shape takes")
        if value.count(0, "B") == 2:
            _check_scales(value.table(1), shape, sizes)
        return tensor.count(6), shape

    def _check_node(self, node: Table, shapes: Mapping[int, tuple[int, ...]]) -> None:
        kind, table = NODES.get(node.count(0, "B")), node.table(1)
        if kind is None:
            raise Unexpected(f"XNNPACK's node {node.count(0, 'B')} is none that this project writes")
        ids = [table.count(field) for field in kind.values]
        ids += [i for field in kind.optional if (i := table.count(field)) != _NONE]
        if not shapes.keys() >= {*ids}:
            raise Unexpected("a node of XNNPACK reads a value that there is not")
        for field in kind.lists:
            if table.length(field) > _MOST_AXES or (kind.lists != (0, 1) and table.length(field) != table.count(0)):
                raise Unexpected("a node of XNNPACK has not one number for each axis")
            if kind.lists == (0, 1) and table.length(field) != len(shapes[ids[0]]):
                raise Unexpected("a node of XNNPACK does not pad each axis")


def _tensor(value: Table) -> Table:
    """The tensor of a value, whether or not it is quantized."""
    kind, table = value.count(0, "B"), value.table(1)
    if kind not in (1, 2):
        raise Unexpected("a value for XNNPACK is of no kind")
    return table if kind == 1 else table.table(0)


def _check_scales(table: Table, shape: tuple[int, ...], sizes: list[int]) -> None:
    kind, scales = table.count(1, "B"), table.table(2)
    if kind == 1:  # one for each channel
        axis, place = scales.count(1, "i"), scales.count(2)
        count = scales.length(0) or scales.count(3)
        inside = bool(scales.length(0)) or (0 < place < len(sizes) and sizes[place] >= 4 * count)
        if not (0 <= axis < len(shape) and count == shape[axis] and inside):
            raise Unexpected("a value for XNNPACK has other scales than channels")
    elif kind not in (2, 3):  # one for all; as they come
        raise Unexpected("a value for XNNPACK is quantized in another way")
