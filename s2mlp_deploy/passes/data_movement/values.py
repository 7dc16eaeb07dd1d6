"""Values of the interpretation: known, moved or opaque; and the addresses that stand for elements."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.schema.array import Array

FILL = -1
"""The address of zero, which has no source."""


@dataclass(frozen=True, eq=False)
class Known:
    """A value that does not depend on the inputs' elements."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape


@dataclass(frozen=True, eq=False)
class Moved:
    """Elements of other values, in another arrangement.

    ``map`` has the value's shape and holds the address of each element's source, or :data:`FILL`. ``storage`` holds the
    addresses at which a framework that slices without copying, and assigns in place, keeps the elements.
    """

    map: Array
    dtype: ir.DataType
    storage: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.map.shape


@dataclass(frozen=True, eq=False)
class Parts:
    """A sequence of moved tensors, which a network only takes apart again."""

    parts: tuple[Moved, ...]

    @property
    def shape(self) -> None:
        """None: a sequence has no shape."""
        return None

    @property
    def dtype(self) -> None:
        """None: nor has it an element type."""
        return None


@dataclass(frozen=True)
class Opaque:
    """A computed value; ``shape`` and ``dtype`` are None where they are not known."""

    shape: tuple[int, ...] | None
    dtype: ir.DataType | None


AbstractValue: TypeAlias = Known | Moved | Parts | Opaque


@dataclass(frozen=True, eq=False)
class Root:
    """A range of addresses, from ``base`` on: for the elements of ``value``, of a constant ``array``, or of new memory."""

    base: int
    shape: tuple[int, ...]
    dtype: ir.DataType
    value: ir.Value | None = None
    array: Array | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def addresses(self) -> Array:
        """The address of each element."""
        return np.arange(self.base, self.base + self.size, dtype=np.int64).reshape(self.shape)


class AddressSpace:
    """Gives addresses to elements of computed values, constants and memory."""

    def __init__(self) -> None:
        self._roots: list[Root] = []
        self._bases: list[int] = []
        self._of_value: dict[ir.Value, Root] = {}
        self._of_number: dict[tuple[ir.DataType, bytes], Root] = {}
        self._next = 0

    def of_value(self, value: ir.Value, shape: tuple[int, ...], dtype: ir.DataType) -> Moved:
        """The elements of ``value``, each where it is."""
        if value not in self._of_value:
            self._of_value[value] = self._add(shape, dtype, value=value)
        addresses = self._of_value[value].addresses
        return Moved(addresses, dtype, addresses)

    def of_array(self, array: Array, dtype: ir.DataType) -> Moved:
        """The elements of a constant; zeros, bit by bit, have no address of their own, and equal numbers share one."""
        memory = self.memory(array.shape, dtype)
        bits = _bits(array)
        if not array.size or (bits == bits[0]).all():
            source = FILL if not array.size or not bits[0] else self._number(array.reshape(-1)[0], dtype).base
            return Moved(np.broadcast_to(np.int64(source), array.shape), dtype, memory)
        return Moved(self._add(array.shape, dtype, array=array).addresses, dtype, memory)

    def memory(self, shape: tuple[int, ...], dtype: ir.DataType) -> Array:
        """The addresses of new memory."""
        return self._add(shape, dtype).addresses

    def root_at(self, address: int) -> Root:
        """The root that an address lies in."""
        return self._roots[bisect_right(self._bases, address) - 1]

    def roots_in(self, addresses: Array) -> list[Root]:
        """The roots that ``addresses`` lie in, in order."""
        present = addresses[addresses >= 0]
        if not present.size:
            return []
        first, last = self.root_at(int(present.min())), self.root_at(int(present.max()))
        if first is last:
            return [first]
        places = np.searchsorted(np.array(self._bases), present, side="right")
        return [self._roots[i - 1] for i in np.unique(places)]

    def _number(self, number: Array, dtype: ir.DataType) -> Root:
        key = (dtype, number.tobytes())
        if key not in self._of_number:
            self._of_number[key] = self._add((), dtype, array=np.asarray(number))
        return self._of_number[key]

    def _add(
        self, shape: tuple[int, ...], dtype: ir.DataType, *, value: ir.Value | None = None, array: Array | None = None
    ) -> Root:
        root = Root(self._next, shape, dtype, value, array)
        self._roots.append(root)
        self._bases.append(root.base)
        self._next += max(root.size, 1)
        return root


def _bits(array: Array) -> Array:
    """The elements as unsigned integers in a row, so that −0.0 and NaN compare by their bits; one where all are the same in memory."""
    if array.size and not any(array.strides):
        array = array[(slice(1),) * array.ndim]
    row = np.ascontiguousarray(array).reshape(-1)
    return row.view(f"u{row.itemsize}")
