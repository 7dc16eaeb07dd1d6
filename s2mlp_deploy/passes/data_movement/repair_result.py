"""Records of a repair: regions written anew, nodes left alone, overlapping statements."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Region:
    """A subgraph that only moved data, and was written anew.

    ``inputs`` and ``outputs`` are names of values; ``before`` and ``after`` count its nodes by operator.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    before: Counter[str]
    after: Counter[str]


@dataclass(frozen=True)
class LeftAlone:
    """A node that may move data and stays as it is, and the reason in words."""

    node: str
    reason: str


@dataclass(frozen=True)
class Statement:
    """An assignment of a slice of a buffer to an overlapping slice of the same buffer.

    Exported, it reads all sources before it writes. PyTorch on one CPU thread reads values that it has just written.
    ``name`` is the node's and identifies the statement; ``scope`` is the path of modules that the exporter recorded, or the empty string.
    ``shape`` is that of the buffer, with a name or ``?`` for each size that is free; data moves by ``offset`` along ``axis``.
    ``reason`` says why the order of PyTorch's copy is not known, and is None where it is: then ``inplace`` can be restored.
    """

    name: str
    scope: str
    shape: tuple[int | str, ...]
    axis: int
    offset: int
    reason: str | None = None


@dataclass(frozen=True)
class Repair:
    """A new model, whose data movement is written plainly, and a record of the changes."""

    model: ir.Model
    regions: tuple[Region, ...]
    left_alone: tuple[LeftAlone, ...]
    statements: tuple[Statement, ...]
