"""Plan any map as one Gather over rows: the longest aligned runs of neighbouring elements that stay together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from s2mlp_deploy.passes.data_movement.steps import Step, concat, gather, pad, reshape
from s2mlp_deploy.schema.array import Array

_MOST_ROWS = 1 << 20


def gathers(addresses: Array, sources: Sequence[Step]) -> Iterator[Step]:
    """A Gather for each number of leading entries (samples, say) that all move alike, the largest number first.

    ``addresses`` count through ``sources``, one behind another; −1 is zero.
    """
    offsets = np.cumsum([0, *(s.size for s in sources)]).tolist()
    alike = [prod(addresses.shape[:i]) for i in range(addresses.ndim, -1, -1)]
    for entries in dict.fromkeys(alike):
        if any(s.size % entries for s in sources):
            continue
        local = _first_entry(addresses, [s.size for s in sources], offsets, entries)
        if local is not None and (step := _gather(local, sources, addresses.shape, entries)) is not None:
            yield step


def _first_entry(addresses: Array, sizes: Sequence[int], offsets: Sequence[int], entries: int) -> Array | None:
    """The map of the first of ``entries``, counting through the first entry of each source; None where others move otherwise."""
    grid = addresses.reshape(entries, -1)
    result = np.full(grid.shape[1], -1, np.int64)
    predicted = np.full(grid.shape, -1, np.int64) if len(sizes) > 1 else None
    base = 0
    for size, offset in zip(sizes, offsets, strict=False):
        stride = size // entries
        inside = (grid[0] >= offset) & (grid[0] < offset + size)
        local = grid[0][inside] - offset
        if local.size and local.max() >= stride:
            return None
        result[inside] = local + base
        starts = np.arange(entries, dtype=np.int64)[:, None] * stride
        if predicted is None:
            return result if np.array_equal(np.where(inside, grid[0] + starts, -1), grid) else None
        predicted[:, inside] = local + starts + offset
        base += stride
    return result if predicted is not None and np.array_equal(predicted, grid) else None


def _gather(local: Array, sources: Sequence[Step], shape: tuple[int, ...], entries: int) -> Step | None:
    strides = [s.size // entries for s in sources]
    breaks = np.flatnonzero((np.diff(local) != 1) & ~((local[1:] < 0) & (local[:-1] < 0))) + 1
    starts = local[np.concatenate([[0], breaks]).astype(np.int64)]
    row = int(np.gcd.reduce([local.size, *strides, *breaks.tolist(), *starts[starts >= 0].tolist()]))
    if local.size // row > _MOST_ROWS or row == 0:
        return None
    numbers = local[::row]
    count = sum(strides) // row
    indices = np.where(numbers < 0, count, numbers // row)
    step = concat([reshape(s, (entries, n // row, row)) for s, n in zip(sources, strides, strict=True)], 1)
    if (numbers < 0).any():
        step = pad(step, [(0, 0), (0, 1), (0, 0)], "constant")
    return reshape(gather(step, indices, 1), shape)
