"""Read the file of a program's weights: a header, then each array behind 64 bytes that describe it.

Little-endian, as Core ML's own library writes it. Header: count (uint32), version (uint32), zeros. Before an array:
a sentinel (uint32), its type (uint32), its bytes (uint64), where they begin (uint64), unused bits (uint64), zeros.
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path

import numpy as np

from s2mlp_deploy.formats.artifact_scan import Unexpected
from s2mlp_deploy.schema.array import Array

ALIGNMENT = 64
_VERSION = 2
_SENTINEL = 0xDEADBEEF
_TYPES = {1: "float16", 2: "float32", 3: "uint8", 4: "int8"}


class WeightFile:
    """The file at ``path``, mapped into memory.

    Raises:
        Unexpected: where it is not of this kind.
        OSError: where it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if path.stat().st_size < ALIGNMENT:
            raise Unexpected("its file of weights has no header")
        self._bytes = np.memmap(path, np.uint8, "r")
        self._most = int(self._unpack("<I", 0)[0])
        if self._unpack("<I", 4)[0] != _VERSION or self._most > len(self._bytes) // (2 * ALIGNMENT) + 1:
            raise Unexpected("its file of weights has another version, or claims more than it can hold")

    def array(self, offset: int, shape: tuple[int, ...], dtype: str) -> Array:
        """The array that is described at ``offset``, of ``shape`` and ``dtype``.

        Raises:
            Unexpected: where the file does not hold that there.
        """
        if offset % ALIGNMENT or not ALIGNMENT <= offset <= len(self._bytes) - ALIGNMENT:
            raise Unexpected(f"weights are to be read at {offset}, where the file has none")
        sentinel, kind, size, start, unused = self._unpack("<IIQQQ", offset)
        whole = sentinel == _SENTINEL and _TYPES.get(kind) == dtype and not unused
        if not whole or size != np.dtype(dtype).itemsize * prod(shape):
            raise Unexpected(f"the weights at {offset} are not {dtype} of the shape {list(shape)}")
        if start != offset + ALIGNMENT or size > len(self._bytes) - start:
            raise Unexpected(f"the weights at {offset} do not lie behind their description")
        found: Array = self._bytes[start : start + size].view(dtype).reshape(shape)
        return found

    def _unpack(self, form: str, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(form, self._bytes.data, offset)
