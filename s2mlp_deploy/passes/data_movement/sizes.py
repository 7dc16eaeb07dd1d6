"""Sizes to interpret a graph at: those of its inputs, with numbers in place of the free ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import onnx_ir as ir

InputShapes: TypeAlias = Mapping[ir.Value, tuple[int, ...] | None]

_BATCHES = (1, 4, 8, 16, 32, 64, 3, 5, 6)
"""Multiples to try: a network of video frames, for example, takes only whole clips."""

_UNITS = (32, 64, 224, 96, 16, 7, 1)
"""Units of all other free sizes, to try: networks that halve a map several times take only multiples."""


ONLY_THE_BATCH = 2
"""The most sizes that are tried where no other size than the batch is free."""


def fed_inputs(graph: ir.Graph) -> list[ir.Value]:
    """The inputs that have no value in the file; old exporters list all weights among the inputs."""
    return [value for value in graph.inputs if not value.is_initializer()]


def trials(graph: ir.Graph) -> Iterator[list[InputShapes]]:
    """Shapes to interpret ``graph`` at, several at a time if sizes are free; the first group that fits the graph is right.

    A free size of a first axis is taken for the batch. In one group, no two free sizes are the same, nor is any one of them
    the same twice.
    """
    inputs = fed_inputs(graph)
    free = _free_sizes(inputs)
    first = [key for key, axis in free.items() if axis == 0]
    others = [key for key, axis in free.items() if axis > 0]
    if not free:
        yield [_bound(inputs, {})]
        return
    for batch, unit in _multiples(bool(first), bool(others)):
        patterns = ((3, 4, 5), (4, 5, 3), (5, 3, 4)) if others else ((2,), (3,))
        batches = (2, 3, 2)
        yield [
            _bound(
                inputs,
                dict.fromkeys(first, batch * count) | {key: unit * pattern[i % 3] for i, key in enumerate(others)},
            )
            for pattern, count in zip(patterns, batches, strict=False)
        ]


def _multiples(first: bool, others: bool) -> Iterator[tuple[int, int]]:
    for unit in _UNITS if others else (1,):
        yield 1, unit
    for batch in _BATCHES[1:] if first else ():
        yield batch, _UNITS[0]


def _key(value: ir.Value, axis: int) -> str:
    """What names a free size: sizes of the same name are equal."""
    size = value.shape[axis] if value.shape is not None else None
    name = size.value if isinstance(size, ir.SymbolicDim) else None
    return name if isinstance(name, str) and name else f"{value.name}:{axis}"


def _free_sizes(inputs: Sequence[ir.Value]) -> dict[str, int]:
    """The free sizes, each with the first axis that it is found on."""
    found: dict[str, int] = {}
    for value in inputs:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int):
                found[_key(value, axis)] = min(axis, found.get(_key(value, axis), axis))
    return found


def _bound(inputs: Sequence[ir.Value], sizes: Mapping[str, int]) -> InputShapes:
    return {
        value: None
        if value.shape is None
        else tuple(int(n) if isinstance(n, int) else sizes[_key(value, i)] for i, n in enumerate(value.shape))
        for value in inputs
    }
