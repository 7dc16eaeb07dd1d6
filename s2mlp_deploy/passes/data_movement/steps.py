"""Expressions of moving operators, with every shape as a number: the planners' output for one size of the inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np

from s2mlp_deploy.schema.array import Array

Op = Literal["Source", "Zeros", "Reshape", "Transpose", "Slice", "Pad", "Concat", "Gather", "Expand"]


@dataclass(frozen=True, eq=False)
class Step:
    """An operator on the results of other steps, or source number ``index`` (op Source).

    ``axes`` is the permutation of a Transpose, the axes of a Slice, and the one axis of Concat or Gather. A Slice has a
    range for each of its axes, a Pad the numbers of elements before and after on every axis, and ``mode`` (constant:
    zero; edge). ``indices`` are a Gather's.
    """

    op: Op
    shape: tuple[int, ...]
    inputs: tuple[Step, ...] = ()
    index: int = 0
    axes: tuple[int, ...] = ()
    ranges: tuple[range, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    mode: str = "constant"
    indices: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)


def source(index: int, shape: tuple[int, ...]) -> Step:
    """Source number ``index``."""
    return Step("Source", shape, index=index)


def zeros(shape: tuple[int, ...]) -> Step:
    """A constant."""
    return Step("Zeros", shape)


def reshape(step: Step, shape: Sequence[int]) -> Step:
    """``step`` in another shape; no operator where that is its own."""
    if step.op == "Reshape":
        (step,) = step.inputs
    if step.shape == tuple(shape):
        return step
    return zeros(tuple(shape)) if step.op == "Zeros" else Step("Reshape", tuple(shape), (step,))


def transpose(step: Step, perm: Sequence[int]) -> Step:
    """``step`` with its axes in the order ``perm``."""
    if list(perm) == sorted(perm):
        return step
    return Step("Transpose", tuple(step.shape[i] for i in perm), (step,), axes=tuple(perm))


def slice_axes(step: Step, ranges: Sequence[range]) -> Step:
    """The part of ``step`` that lies in these ranges, one an axis."""
    axes = tuple(i for i, (r, n) in enumerate(zip(ranges, step.shape, strict=True)) if r != range(n))
    if not axes:
        return step
    shape = tuple(len(r) for r in ranges)
    return Step("Slice", shape, (step,), axes=axes, ranges=tuple(ranges[i] for i in axes))


def pad(step: Step, pads: Sequence[tuple[int, int]], mode: Literal["constant", "edge"]) -> Step:
    """``step`` with elements added before and after, on every axis."""
    if not any(map(any, pads)):
        return step
    shape = tuple(n + before + after for n, (before, after) in zip(step.shape, pads, strict=True))
    return Step("Pad", shape, (step,), pads=tuple(pads), mode=mode)


def concat(steps: Sequence[Step], axis: int) -> Step:
    """``steps`` one behind another; zeros at the ends become a Pad."""
    first = next((i for i, step in enumerate(steps) if step.op != "Zeros"), None)
    if first is None:
        shape = list(steps[0].shape)
        shape[axis] = sum(step.shape[axis] for step in steps)
        return zeros(tuple(shape))
    last = max(i for i, step in enumerate(steps) if step.op != "Zeros")
    before, after = (sum(step.shape[axis] for step in part) for part in (steps[:first], steps[last + 1 :]))
    middle = steps[first : last + 1]
    shape = list(middle[0].shape)
    shape[axis] = sum(step.shape[axis] for step in middle)
    joined = middle[0] if len(middle) == 1 else Step("Concat", tuple(shape), tuple(middle), axes=(axis,))
    return pad(joined, [(before, after) if i == axis else (0, 0) for i in range(len(shape))], "constant")


def gather(step: Step, indices: Array, axis: int) -> Step:
    """The entries of ``step`` along ``axis`` that a vector of ``indices`` names."""
    if np.array_equal(indices, np.arange(step.shape[axis])):
        return step
    shape = (*step.shape[:axis], indices.size, *step.shape[axis + 1 :])
    return Step("Gather", shape, (step,), axes=(axis,), indices=indices)


def expand(step: Step, shape: Sequence[int]) -> Step:
    """``step`` repeated along axes of size 1, to ``shape``."""
    return step if step.shape == tuple(shape) else Step("Expand", tuple(shape), (step,))


def all_steps(results: Sequence[Step]) -> Iterator[Step]:
    """Every step that ``results`` need, once, inputs first."""
    seen: set[int] = set()

    def visit(step: Step) -> Iterator[Step]:
        if id(step) not in seen:
            seen.add(id(step))
            for other in step.inputs:
                yield from visit(other)
            yield step

    for result in results:
        yield from visit(result)
