"""Read FlatBuffers whose schema is known, and trust no offset in them.

ExecuTorch's own reader of its tables verifies them, but XNNPACK's does not, and Python's reader of the former comes with the whole
compiler.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from s2mlp_deploy.formats.artifact_scan import Unexpected

Number: TypeAlias = int | float


@dataclass(frozen=True)
class Table:
    """The table that begins at ``place`` in ``data``. Fields are numbered as the schema lists them, a union's type before it."""

    data: memoryview
    place: int

    @classmethod
    def root(cls, data: memoryview, identifier: bytes) -> Table:
        """The table that the buffer ``data`` is of.

        Raises:
            Unexpected: where the buffer is not of that kind.
        """
        if bytes(data[4:8]) != identifier:
            raise Unexpected(f"it has tables of another kind than {identifier.decode()}")
        return cls(data, _read(data, "I", 0))

    def number(self, field: int, code: str = "I", default: Number = 0) -> Number:
        """The number in ``field``, of the type that ``code`` has in :mod:`struct`."""
        place = self._place(field)
        found: Number = default if place is None else struct.unpack_from(f"<{code}", self.data, _inside(place))[0]
        return found

    def count(self, field: int, code: str = "I") -> int:
        """The same of an integer."""
        return int(self.number(field, code))

    def has(self, field: int) -> bool:
        """Whether ``field`` is given."""
        return self._place(field) is not None

    def table(self, field: int) -> Table:
        """The table in ``field``.

        Raises:
            Unexpected: where there is none.
        """
        place = self._place(field)
        if place is None:
            raise Unexpected("a table lacks a part")
        return Table(self.data, place + _read(self.data, "I", place))

    def text(self, field: int) -> str:
        """The text in ``field``; empty where there is none."""
        start, count = self._vector(field, 1)
        if count and self.data[start + count] != 0:
            raise Unexpected("a text has no end")
        return bytes(self.data[start : start + count]).decode()

    def numbers(self, field: int, code: str = "I") -> tuple[int, ...]:
        """The numbers in the list ``field``."""
        start, count = self._vector(field, struct.calcsize(code))
        return struct.unpack_from(f"<{count}{code}", self.data, start)

    def tables(self, field: int) -> Iterator[Table]:
        """The tables in the list ``field``."""
        start, count = self._vector(field, 4)
        for place in range(start, start + 4 * count, 4):
            yield Table(self.data, place + _read(self.data, "I", place))

    def length(self, field: int) -> int:
        """The number of items in the list ``field``."""
        return self._vector(field, 1)[1]

    def _vector(self, field: int, item_bytes: int) -> tuple[int, int]:
        """Where the items of the list ``field`` begin, and how many there are."""
        place = self._place(field)
        if place is None:
            return 0, 0
        start = place + _read(self.data, "I", place)
        count = _read(self.data, "I", start)
        if start + 4 + count * item_bytes > len(self.data):
            raise Unexpected(f"it claims a list of {count:,} items")
        return start + 4, count

    def _place(self, field: int) -> int | None:
        """Where ``field`` lies; None where it is not given."""
        names = self.place - _read(self.data, "i", self.place)
        entry = 4 + 2 * field
        if entry >= _read(self.data, "H", names):
            return None
        offset = _read(self.data, "H", names + entry)
        return self.place + offset if offset else None


def _read(data: memoryview, code: str, place: int) -> int:
    return int(struct.unpack_from(f"<{code}", data, _inside(place))[0])


def _inside(place: int) -> int:
    """``place``, which :mod:`struct` would count from the end where it is negative."""
    if place < 0:
        raise Unexpected("an offset leads out of it")
    return place
