"""Plan a map in which every axis moves by itself: Slice, Transpose, Reshape, Pad and Expand, each at most a few times.

Such a map reads one source, and the address of an element is a sum of one term for each axis:

    address(t₀, t₁, …) = address(0, 0, …) + δ₀(t₀) + δ₁(t₁) + …

where each δ runs along one axis of the source. Axes are split where one of the target runs along two of the source, or
two along one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Literal, TypeAlias

import numpy as np

from s2mlp_deploy.passes.data_movement.steps import Step, concat, expand, gather, pad, reshape, slice_axes, transpose
from s2mlp_deploy.schema.array import Array

Style: TypeAlias = Literal["pad", "concat", "gather"]
"""How an axis that is no plain range is written: repeated ends as a Pad, ranges as a Concat, or indices as a Gather."""

_MOST_RANGES = 8
"""An axis of more ranges than that is only written as a Gather."""

_MOST_SPLITS = 8


@dataclass(frozen=True)
class Separable:
    """A separable map: ``shape`` is the source's after its axes were split.

    For each axis of the target, after its axes were split: ``axes`` has the source's axis, or None where the target
    repeats; ``places`` the positions on it; ``zeros`` how many entries before and after are zero.
    ``start`` is the position of the first element on every axis of the source.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    axes: tuple[int | None, ...]
    places: tuple[Array, ...]
    zeros: tuple[tuple[int, int], ...]


def separate(addresses: Array, shape: tuple[int, ...]) -> Separable | None:
    """``addresses`` (−1: zero) in a source of this shape as a separable map; None where it is not one."""
    core, borders = _without_zeros(addresses)
    if core is None:
        return None
    first = int(core.flat[0])
    deltas = [_line(core, axis) - first for axis in range(core.ndim)]
    if not _is_sum(core, first, deltas):
        return None
    shape = shape or (1,)
    for _ in range(_MOST_SPLITS):
        start = np.unravel_index(first, shape)
        lines = [np.array(np.unravel_index(first + delta, shape)) for delta in deltas]
        runs = [[k for k in range(len(shape)) if (line[k] != start[k]).any()] for line in lines]
        target = next((j for j, along in enumerate(runs) if len(along) > 1), None)
        if target is not None:
            if any(borders[target]) or (m := _period(lines[target], runs[target])) is None:
                return None
            parts = [deltas[target][::m], deltas[target][:m]]
            if not np.array_equal(parts[0][:, None] + parts[1], deltas[target].reshape(-1, m)):
                return None
            deltas[target : target + 1], borders[target : target + 1] = parts, [(0, 0)] * 2
            continue
        shared = _shared(runs)
        if shared is None:
            axes = tuple(along[0] if along else None for along in runs)
            places = tuple(
                line[k] if k is not None else np.zeros(line.shape[1], np.int64)
                for line, k in zip(lines, axes, strict=True)
            )
            return Separable(shape, tuple(int(i) for i in start), axes, places, tuple(borders))
        k, j, i = shared
        m = max(_divisor(lines[j][k] - start[k]), _divisor(lines[i][k] - start[k]))
        if m <= 1 or shape[k] % m or m == shape[k]:
            return None
        shape = (*shape[:k], shape[k] // m, m, *shape[k + 1 :])
    return None


def _without_zeros(addresses: Array) -> tuple[Array | None, list[tuple[int, int]]]:
    """The part without zeros, and how many entries of each axis before and after it are zero; None if zeros are inside."""
    borders = [(0, 0)] * addresses.ndim
    if addresses.size and int(addresses.min()) >= 0:
        return addresses, borders
    present = addresses >= 0
    if not present.any():
        return None, borders
    for axis in range(addresses.ndim):
        used = np.flatnonzero(present.any(axis=tuple(i for i in range(addresses.ndim) if i != axis)))
        borders[axis] = (int(used[0]), int(addresses.shape[axis] - 1 - used[-1]))
    core = addresses[tuple(slice(b, n - a) for (b, a), n in zip(borders, addresses.shape, strict=True))]
    return (core if int(core.min()) >= 0 else None), borders


def _line(array: Array, axis: int) -> Array:
    """The elements along ``axis`` from the first element."""
    return array[tuple(slice(None) if i == axis else 0 for i in range(array.ndim))]


def _is_sum(core: Array, first: int, deltas: Sequence[Array]) -> bool:
    """Whether every address is the first one plus a term for each axis."""
    if int(core.flat[-1]) != first + sum(int(delta[-1]) for delta in deltas):
        return False
    total = np.array(first, np.int64)
    for delta in deltas:
        total = total[..., None] + delta
    return np.array_equal(total, core)


def _period(line: Array, along: Sequence[int]) -> int | None:
    """How many entries of a target's axis run along the last of the source's axes before another one moves."""
    *slow, fast = (line[k] for k in along)
    moves = (np.diff(fast) < 0) | np.any([np.diff(s) != 0 for s in slow], axis=0)
    m = gcd(line.shape[1], *(int(i) + 1 for i in np.flatnonzero(moves)))
    return m if 1 < m < line.shape[1] else None


def _shared(runs: Sequence[Sequence[int]]) -> tuple[int, int, int] | None:
    """A source's axis that two of the target's run along, with both."""
    owner: dict[int, int] = {}
    for j, along in enumerate(runs):
        for k in along:
            if k in owner:
                return k, owner[k], j
            owner[k] = j
    return None


def _divisor(steps: Array) -> int:
    return int(np.gcd.reduce(np.abs(steps)))


def ranges_of(places: Array) -> list[range]:
    """``places`` as the fewest arithmetic ranges, one behind another; a single place is a range of step 1."""
    found, i = [], 0
    while i < places.size:
        step = int(places[i + 1] - places[i]) if i + 1 < places.size else 0
        if step == 0:
            found.append(range(int(places[i]), int(places[i]) + 1))
            i += 1
            continue
        breaks = np.flatnonzero(np.diff(places[i:]) != step)
        count = int(breaks[0]) + 1 if breaks.size else places.size - i
        if count == 2 and abs(step) != 1:  # two neighbours of different ranges
            found.append(range(int(places[i]), int(places[i]) + 1))
            i += 1
            continue
        found.append(range(int(places[i]), int(places[i]) + step * count, step))
        i += count
    return found


def _with_ends(places: Array) -> tuple[range, tuple[int, int]] | None:
    """``places`` as a rising range whose first and last entries repeat, and how often; None for anything else."""
    before = int(np.argmax(places != places[0])) - 1 if (places != places[0]).any() else -1
    after = int(np.argmax(places[::-1] != places[-1])) - 1
    if before < 0:
        return None
    core = places[before : places.size - after]
    if (np.diff(core) != 1).any():
        return None
    return range(int(core[0]), int(core[-1]) + 1), (before, after)


def build(separable: Separable, source: Step, shape: tuple[int, ...], style: Style) -> Step | None:
    """The steps of a separable map from ``source`` to ``shape``, in one of the styles; None where it is not possible so."""
    ends: list[tuple[int, int]] = [(0, 0)] * len(separable.axes)
    parts: list[list[range]] = []
    indices: dict[int, Array] = {}
    for j, (axis, places) in enumerate(zip(separable.axes, separable.places, strict=True)):
        found = ranges_of(places) if axis is not None else [range(1)]
        repeated = _with_ends(places) if style == "pad" and len(found) > 1 else None
        if repeated:
            found, ends[j] = [repeated[0]], repeated[1]
        elif len(found) > 1 and style == "gather" and axis is not None:
            indices[j], found = places, [range(separable.shape[axis])]
        elif len(found) > _MOST_RANGES:
            return None
        parts.append(found)

    def core(chosen: Sequence[range]) -> Step:
        return _core(separable, source, chosen)

    step = _joined(core, parts)
    for j, numbers in indices.items():
        step = gather(step, numbers, j)
    step = pad(step, ends, "edge")
    full = [
        n if k is None else m for n, m, k in zip(map(len, separable.places), step.shape, separable.axes, strict=True)
    ]
    step = expand(step, full)
    return reshape(pad(step, separable.zeros, "constant"), shape)


def _joined(core: Callable[[Sequence[range]], Step], parts: Sequence[Sequence[range]]) -> Step:
    """The Concat of one core for each choice of ranges."""

    def join(chosen: tuple[range, ...]) -> Step:
        j = len(chosen)
        if j == len(parts):
            return core(chosen)
        return concat([join((*chosen, part)) for part in parts[j]], j)

    return join(())


def _core(separable: Separable, source: Step, chosen: Sequence[range]) -> Step:
    """One box of the source, with its axes in the target's order."""
    ranges = [range(i, i + 1) for i in separable.start]
    for axis, part in zip(separable.axes, chosen, strict=True):
        if axis is not None:
            ranges[axis] = part
    step = slice_axes(reshape(source, separable.shape), ranges)
    step = transpose(step, list(_order(separable)))
    return reshape(
        step, [len(part) if axis is not None else 1 for axis, part in zip(separable.axes, chosen, strict=True)]
    )


def _order(separable: Separable) -> Iterator[int]:
    """The source's axes in the target's order; one that the target does not run along stays before its next one."""
    used = [axis for axis in separable.axes if axis is not None]
    idle: list[int] = []
    before: dict[int, list[int]] = {}
    for k in range(len(separable.shape)):
        if k in used:
            before[k], idle = idle, []
        else:
            idle.append(k)
    for k in used:
        yield from before[k]
        yield k
    yield from idle
