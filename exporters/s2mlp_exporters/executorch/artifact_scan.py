"""Scan a .pte file before ExecuTorch loads it: one method of the operators that this project's graphs become, and whole weights.

As onnx_scan does for ONNX files. ExecuTorch verifies the offsets in its own tables, and ends the process where a kernel gets a value
of another kind than it reads: here the kinds, indices and sizes that the offsets lead to are compared with what there is.

Source: schema/program.fbs in ExecuTorch.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path

from s2mlp_deploy.formats.artifact_scan import Unexpected, inspecting
from s2mlp_deploy.graph.metadata import PREFIX
from s2mlp_exporters.executorch import xnnpack_scan
from s2mlp_exporters.executorch.flatbuffer import Table
from s2mlp_exporters.executorch.lower import FORWARD

_NULL, _INT, _BOOL, _DOUBLE, _TENSOR, _STRING, _INTS, _TENSORS = 1, 2, 3, 4, 5, 6, 7, 10
"""Kinds of values, as the schema numbers them."""

_OR_NULL = {_INT, _NULL}
_OUT = (_TENSOR, _TENSOR)
_BINARY = (_INT, _INT, _INT)

OPERATORS: Mapping[str, tuple[int | set[int], ...]] = {
    "aten::_softmax.out": (_TENSOR, _INT, _BOOL, *_OUT),
    "aten::cat.out": (_TENSORS, _INT, *_OUT),
    "aten::index_select.out": (_TENSOR, _INT, _TENSOR, *_OUT),
    "aten::mean.out": (_TENSOR, _INTS, _BOOL, {_INT, _NULL}, *_OUT),
    "aten::mul.out": (_TENSOR, _TENSOR, *_OUT),
    "aten::permute_copy.out": (_TENSOR, _INTS, *_OUT),
    "aten::slice_copy.Tensor_out": (_TENSOR, _INT, _OR_NULL, _OR_NULL, _INT, *_OUT),
    "aten::sum.IntList_out": (_TENSOR, _INTS, _BOOL, {_INT, _NULL}, *_OUT),
    "aten::sym_size.int": (_TENSOR, _INT, _INT),
    "aten::view_copy.out": (_TENSOR, _INTS, *_OUT),
    "dim_order_ops::_to_dim_order_copy.out": (_TENSOR, _BOOL, {_INTS, _NULL}, *_OUT),
    "executorch_prim::add.Scalar": _BINARY,
    "executorch_prim::et_view.default": (_TENSOR, _INTS, _TENSOR),
    "executorch_prim::floordiv.Scalar": _BINARY,
    "executorch_prim::mul.Scalar": _BINARY,
    "executorch_prim::sub.Scalar": _BINARY,
}
"""The operators that XNNPACK leaves to the runtime in this project's programs, and the kinds of their arguments."""

_ITEM_BYTES = {0: 1, 1: 1, 4: 8, 6: 4}
"""Bytes of an element: uint8, int8, int64, float32."""

_MOST_AXES = 8
_LARGEST = 2**40

_HEADER = struct.Struct("<4sIQQQ")
"""What follows the FlatBuffer's identifier: magic, length of the header, bytes of the tables, where segments begin, their bytes."""


def inspect(path: Path) -> None:
    """Refuse the file at ``path`` where it could do more than compute, or where loading it could end the process.

    Raises:
        BundleError: with the reason.
    """
    with inspecting(path, OSError, struct.error, ValueError, IndexError, OverflowError), path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            _scan(memoryview(content))
        finally:
            with suppress(BufferError):  # a traceback holds a part; it is closed with that
                content.close()


def _scan(data: memoryview) -> None:
    magic, _, tables, base, size = _HEADER.unpack_from(data, 8)
    if bytes(data[4:8]) != b"ET12" or magic != b"eh00":
        raise Unexpected("it is no .pte file")
    if tables > base or base + size != len(data):
        raise Unexpected(f"it has {len(data):,} bytes, and its header promises {base + size:,}")
    program = Table.root(data[:tables], b"ET12")
    if program.count(0) or program.length(2) or program.length(3) or program.length(6):
        raise Unexpected("it has another version of the format, or data in its tables")
    segments = [_segment(data[base:], item) for item in program.tables(4)]
    plans = list(program.tables(1))
    names = [plan.text(0) for plan in plans]
    if names.count(FORWARD) != 1 or len(set(names)) != len(names):
        raise Unexpected(f"it has not one method called {FORWARD}")
    for name, plan in zip(names, plans, strict=True):
        reader = _Method(plan, program, segments)
        if name == FORWARD:
            reader.check()
        elif name.startswith(PREFIX):
            reader.check_text()
        else:
            raise Unexpected(f"it has a method {name[:40]!r}, which none of this project's has")


def _segment(data: memoryview, item: Table) -> memoryview:
    offset, size = item.count(0, "Q"), item.count(1, "Q")
    if offset + size > len(data):
        raise Unexpected("a part of it lies beyond its end")
    return data[offset : offset + size]


class _Method:
    """Goes through one method of a program."""

    def __init__(self, plan: Table, program: Table, segments: Sequence[memoryview]) -> None:
        self._plan, self._segments = plan, segments
        self._named = {item.text(0): len(segments[_index(item.count(1), len(segments))]) for item in program.tables(7)}
        constants = program.table(5)
        self._offsets = constants.numbers(1, "Q")
        self._constants = len(segments[_index(constants.count(0), len(segments))]) if self._offsets else 0
        self._values = list(plan.tables(2))
        self._kinds = [value.count(0, "B") for value in self._values]
        self._buffers = plan.numbers(8, "q")

    def check_text(self) -> None:
        """Refuse a method that does more than return a text."""
        outputs = self._ids(self._plan.numbers(4, "i"))
        nothing = not any(self._plan.length(field) for field in (3, 6, 7, 9))
        idle = all(not chain.length(2) for chain in self._plan.tables(5))
        if not (nothing and idle and self._kinds == [_STRING] and outputs == (0,)):
            raise Unexpected("a method that is to return a text does something else")
        self._values[0].table(1).text(0)

    def check(self) -> None:
        """Refuse the method where it would end the process, or read or write elsewhere."""
        plan = self._plan
        if plan.length(9) or any(not 0 <= size < _LARGEST for size in self._buffers):
            raise Unexpected("it takes memory of another device, or more than there is")
        for kind, value in zip(self._kinds, self._values, strict=True):
            self._check_value(kind, value)
        ends = self._ids(plan.numbers(3, "i")), self._ids(plan.numbers(4, "i"))
        if any(len(ids) != 1 or self._kinds[ids[0]] != _TENSOR for ids in ends):
            raise Unexpected("it has not one input and one output")
        operators = [f"{item.text(0)}.{item.text(1)}" for item in plan.tables(6)]
        if unknown := [name for name in operators if name not in OPERATORS]:
            raise Unexpected(f"its operator {unknown[0][:60]!r} is none that this project writes")
        counts = [self._check_delegate(item) for item in plan.tables(7)]
        (chain,) = plan.tables(5)
        if chain.length(3):
            raise Unexpected("it names source files")
        self._ids(chain.numbers(0, "i"))
        self._ids(chain.numbers(1, "i"))
        for instruction in chain.tables(2):
            self._check_call(instruction, operators, counts)

    def _check_value(self, kind: int, value: Table) -> None:
        if kind == _TENSOR:
            self._check_tensor(value.table(1))
        elif kind in (_INTS, _TENSORS):
            wanted = _INT if kind == _INTS else _TENSOR
            items = self._ids(value.table(1).numbers(0, "q" if kind == _INTS else "i"))
            if any(self._kinds[i] != wanted for i in items):
                raise Unexpected("a list of it holds values of another kind")
        elif kind not in (_NULL, _INT, _BOOL, _DOUBLE):
            raise Unexpected("a value is of a kind that none of this project's has")
        elif kind != _NULL:
            value.table(1)

    def _check_tensor(self, tensor: Table) -> None:
        sizes, order = tensor.numbers(2, "i"), tensor.numbers(3, "B")
        item_bytes = _ITEM_BYTES.get(tensor.count(0, "b"))
        if item_bytes is None or len(sizes) > _MOST_AXES or min(sizes, default=0) < 0 or tensor.count(1, "i"):
            raise Unexpected("a tensor has a type or a shape that none has")
        if sorted(order) != list(range(len(sizes))) or tensor.has(9) or tensor.count(8, "b") not in (0, 1):
            raise Unexpected("a tensor lies in memory as none of this project's does")
        size = prod(sizes) * item_bytes
        if place := tensor.count(5):
            if tensor.has(6) or place >= len(self._offsets) or self._offsets[place] + size > self._constants:
                raise Unexpected("a constant lies beyond the end of its part")
        elif tensor.has(6):
            where = tensor.table(6)
            offset = where.count(1) | where.count(2) << 32
            memory = where.count(0)
            if not 0 < memory < len(self._buffers) or offset + size > self._buffers[memory]:
                raise Unexpected("a tensor lies beyond the memory that is planned for it")

    def _check_delegate(self, item: Table) -> int:
        """How many values a part for XNNPACK takes and gives."""
        data = item.table(1)
        if item.text(0) != "XnnpackBackend" or item.length(2) or data.count(0, "b") != 1:
            raise Unexpected("a part of it is for another backend than XNNPACK")
        return xnnpack_scan.scan(self._segments[_index(data.count(1), len(self._segments))], self._named)

    def _check_call(self, instruction: Table, operators: Sequence[str], delegates: Sequence[int]) -> None:
        kind, call = instruction.count(0, "B"), instruction.table(1)
        arguments = self._ids(call.numbers(1, "i")) if kind in (1, 2) else ()
        kinds = [self._kinds[i] for i in arguments]
        if kind == 1:
            name = operators[_index(call.count(0, "i"), len(operators))]
            fits = len(kinds) == len(OPERATORS[name]) and all(
                got in wanted if isinstance(wanted, set) else got == wanted
                for got, wanted in zip(kinds, OPERATORS[name], strict=True)
            )
            if not fits:
                raise Unexpected(f"{name} has not the arguments that it reads")
        elif kind == 2:
            count = delegates[_index(call.count(0, "i"), len(delegates))]
            if len(kinds) != count or {*kinds} != {_TENSOR}:
                raise Unexpected("a part for XNNPACK has not the values that it reads")
        else:
            raise Unexpected("it jumps, or moves values, which none of this project's programs does")

    def _ids(self, items: Sequence[int]) -> tuple[int, ...]:
        """``items``, which are indices of values."""
        return tuple(_index(i, len(self._kinds)) for i in items)


def _index(index: int, count: int) -> int:
    if not 0 <= index < count:
        raise Unexpected(f"it refers to item {index} of {count}")
    return index
