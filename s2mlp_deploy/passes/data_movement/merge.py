"""Merge the plans for several sizes of the inputs into one that is right for each of them.

Numbers that differ between sizes are written relative to an end, copied from an input's shape, or left for the runtime to
derive; where that is not possible, there is no common plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from s2mlp_deploy.passes.data_movement.steps import Step
from s2mlp_deploy.schema.array import Array

END = int(np.iinfo(np.int64).max)
"""The end of an axis, whatever its size."""

_BEFORE_START = -END
"""The end of a range that runs backward to the first element."""

Shapes: TypeAlias = list[tuple[int, ...]]
"""One shape for each size of the inputs."""


class NoCommonPlanError(Exception):
    """Plans differ between sizes in more than numbers that an operator can derive."""


@dataclass(frozen=True, eq=False)
class Operation:
    """An operator of a plan for all sizes: ``numbers`` are its constant inputs after the data, by name.

    ``index`` is the source's where ``op`` is Source. ``steps`` are the steps that were merged, one for each size.
    Where ``sizes`` are given, the second input is a source, and they describe the shape that follows the data: each is an axis
    of that source, whose size it has, or −1 − the size.
    """

    op: str
    steps: tuple[Step, ...]
    inputs: tuple[Operation, ...] = ()
    numbers: dict[str, Array] = field(default_factory=dict)
    attributes: dict[str, int | str | list[int]] = field(default_factory=dict)
    index: int = 0
    sizes: tuple[int, ...] = ()


class Merger:
    """Merges each group of steps once, so that shared steps stay shared."""

    def __init__(self) -> None:
        self._done: dict[tuple[int, ...], Operation] = {}

    def operation(self, steps: tuple[Step, ...]) -> Operation:
        """One plan that does as each of ``steps`` at its size.

        Raises:
            NoCommonPlanError: where there is none.
        """
        key = tuple(id(step) for step in steps)
        if key not in self._done:
            self._done[key] = self._merged(steps)
        return self._done[key]

    def _merged(self, steps: tuple[Step, ...]) -> Operation:
        first = steps[0]
        if len({(s.op, len(s.shape), len(s.inputs), s.axes, s.mode, s.pads, s.index) for s in steps}) > 1:
            raise NoCommonPlanError
        inputs = tuple(self.operation(group) for group in zip(*(s.inputs for s in steps), strict=True))
        if first.op == "Reshape":
            return _reshape(steps, inputs[0])
        numbers: dict[str, Array] = {}
        attributes: dict[str, int | str | list[int]] = {}
        if first.op == "Transpose":
            attributes["perm"] = list(first.axes)
        elif first.op == "Concat":
            attributes["axis"] = first.axes[0]
        elif first.op == "Gather":
            attributes["axis"] = first.axes[0]
            numbers["indices"] = _same([s.indices for s in steps])
        elif first.op == "Pad":
            attributes["mode"] = first.mode
            numbers["pads"] = _vector([side[i] for i in (0, 1) for side in first.pads])
        elif first.op == "Expand":
            return _expanded(steps, inputs[0])
        elif first.op == "Slice":
            numbers = _sliced(steps)
        elif first.op == "Zeros":
            numbers["shape"] = _same([np.array(s.shape) for s in steps])
        return Operation(first.op, steps, inputs, numbers, attributes, first.index)


def _vector(numbers: Sequence[int]) -> Array:
    return np.array(numbers, np.int64)


def _same(arrays: Sequence[Array]) -> Array:
    if any(not np.array_equal(arrays[0], other) for other in arrays[1:]):
        raise NoCommonPlanError
    return arrays[0]


def _reshape(steps: tuple[Step, ...], data: Operation) -> Operation:
    """Reshape, or Squeeze and Unsqueeze where more than one size would have to be derived."""
    old: Shapes = [s.shape for s in data.steps]
    new: Shapes = [s.shape for s in steps]
    numbers: list[int] = []
    free = 0
    for axis, sizes in enumerate(zip(*new, strict=True)):
        if len(set(sizes)) == 1:
            numbers.append(sizes[0])
        elif all(axis < len(shape) and shape[axis] == size for shape, size in zip(old, sizes, strict=True)):
            numbers.append(0)
        else:
            numbers.append(-1)
            free += 1
    if free <= 1 and not (0 in numbers and any(0 in shape for shape in new)):
        if free == 0 and numbers.count(0) == 1:
            numbers[numbers.index(0)] = -1
        return Operation("Reshape", steps, (data,), {"shape": _vector(numbers)})
    return _without_ones(steps, data, old, new)


def _without_ones(steps: tuple[Step, ...], data: Operation, old: Shapes, new: Shapes) -> Operation:
    """Squeeze and Unsqueeze, where only axes of size 1 come and go."""
    for before, after in zip(old, new, strict=True):
        if [n for n in before if n != 1] != [n for n in after if n != 1]:
            raise NoCommonPlanError
    gone, come = (
        _same([_vector([i for i, n in enumerate(shape) if n == 1]) for shape in shapes]) for shapes in (old, new)
    )
    bare = tuple(
        Step("Reshape", tuple(n for n in s.shape if n != 1), (d,)) for s, d in zip(steps, data.steps, strict=True)
    )
    if gone.size:
        data = Operation("Squeeze", bare, (data,), {"axes": gone})
    return Operation("Unsqueeze", steps, (data,), {"axes": come}) if come.size else data


def _expanded(steps: tuple[Step, ...], data: Operation) -> Operation:
    """Expand, to constants where axes are repeated equally often at all sizes, or to a source's sizes."""
    wanted = [
        (1,) * len(steps)
        if all(s.shape[axis] == s.inputs[0].shape[axis] for s in steps)
        else tuple(s.shape[axis] for s in steps)
        for axis in range(len(steps[0].shape))
    ]
    if all(len(set(sizes)) == 1 for sizes in wanted):
        return Operation("Expand", steps, (data,), {"shape": _vector([sizes[0] for sizes in wanted])})
    for source in _sources(data):
        axes = axes_with(wanted, [s.shape for s in source.steps])
        if axes is not None:
            return Operation("Expand", steps, (data, source), sizes=axes)
    raise NoCommonPlanError


def _sources(operation: Operation) -> Iterator[Operation]:
    if operation.op == "Source":
        yield operation
    for other in operation.inputs:
        yield from _sources(other)


def axes_with(wanted: Iterable[tuple[int, ...]], source: Shapes) -> tuple[int, ...] | None:
    """For the sizes of each axis wanted, an axis of ``source`` that has them too, or −1 − the size if it is constant; None if one is not there."""
    found = []
    for sizes in wanted:
        axes = [axis for axis, others in enumerate(zip(*source, strict=True)) if others == sizes]
        if len(set(sizes)) > 1 and not axes:
            return None
        found.append(-1 - sizes[0] if len(set(sizes)) == 1 else axes[0])
    return tuple(found)


def _sliced(steps: Sequence[Step]) -> dict[str, Array]:
    starts, ends, stride = [], [], []
    for i, axis in enumerate(steps[0].axes):
        ranges = [s.ranges[i] for s in steps]
        sizes = [s.inputs[0].shape[axis] for s in steps]
        if len({r.step for r in ranges}) > 1:
            raise NoCommonPlanError
        step = ranges[0].step
        starts.append(_place([r.start for r in ranges], sizes))
        if step < 0 and all(r.stop < 0 for r in ranges):
            ends.append(_BEFORE_START)
        elif len(set(sizes)) > 1 and all(r.stop >= n for r, n in zip(ranges, sizes, strict=True)):
            ends.append(END)
        else:
            ends.append(_place([min(r.stop, n) for r, n in zip(ranges, sizes, strict=True)], sizes))
        stride.append(step)
    numbers = {"starts": _vector(starts), "ends": _vector(ends), "axes": _vector(steps[0].axes)}
    return numbers if set(stride) == {1} else {**numbers, "steps": _vector(stride)}


def _place(places: Sequence[int], sizes: Sequence[int]) -> int:
    """A place on an axis, counted from its start or from its end."""
    if len(set(places)) == 1:
        return places[0]
    from_end = {place - size for place, size in zip(places, sizes, strict=True)}
    if len(from_end) == 1 and (place := from_end.pop()) < 0:
        return place
    raise NoCommonPlanError
