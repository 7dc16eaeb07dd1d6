"""Find the operators that make one value out of its sources, for one size of the inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from s2mlp_deploy.passes.data_movement.cost import complexity
from s2mlp_deploy.passes.data_movement.pieces import cuts
from s2mlp_deploy.passes.data_movement.rows import gathers
from s2mlp_deploy.passes.data_movement.separable import Style, build, separate
from s2mlp_deploy.passes.data_movement.steps import Step, all_steps, concat, reshape, transpose, zeros
from s2mlp_deploy.schema.array import Array

_MOST_PIECES = 16
_DEPTH = 2
"""Cuts lie along this many axes at most."""

_STYLES: tuple[Style, ...] = ("pad", "concat", "gather")


@dataclass(frozen=True, eq=False)
class LocalMap:
    """Where each element of a value comes from: ``addresses`` count through ``sources``, one behind another; −1 is zero."""

    addresses: Array
    sources: tuple[Step, ...]

    @property
    def bounds(self) -> list[int]:
        """The first address of each source, and the end."""
        return np.cumsum([0, *(s.size for s in self.sources)]).tolist()  # type: ignore[no-any-return]


def plans(local: LocalMap, rows: bool) -> Iterator[Step]:
    """Ways to write a map, each exact; without ``rows``, a Gather takes entries of one axis only."""
    shape = local.addresses.shape
    squeezed = LocalMap(local.addresses.reshape([n for n in shape if n != 1]), local.sources)
    layouts = [squeezed] if 1 not in shape else [squeezed, local]  # axes of size 1 may be in the source, too
    whole = [step for layout in layouts for step in _as_one(layout)]
    yield from (reshape(step, shape) for step in whole)
    if not whole:
        turned = _turned(squeezed)
        for candidate in (*layouts, turned):
            if candidate is not None and (step := _as_pieces(candidate, _DEPTH)) is not None:
                yield reshape(step, shape)
        for candidate in (turned, squeezed):
            if rows and candidate is not None:
                yield from (reshape(step, shape) for step in gathers(candidate.addresses, candidate.sources))


def _as_one(local: LocalMap) -> Iterator[Step]:
    """The forms of a map that is zero, or separable in one source."""
    addresses, bounds = local.addresses, local.bounds
    low, high = int(addresses.min(initial=-1)), int(addresses.max(initial=-1))
    if high < 0:
        yield zeros(addresses.shape)
        return
    if low < 0 and len(local.sources) > 1:
        low = int(addresses[addresses >= 0].min())
    index = int(np.searchsorted(bounds, max(low, 0), side="right")) - 1
    if high >= bounds[index + 1]:
        return
    offset = bounds[index]
    relative = addresses if not offset else np.where(addresses < 0, -1, addresses - offset)
    found = separate(relative, local.sources[index].shape)
    if found is None:
        return
    for style in _STYLES:
        step = build(found, local.sources[index], addresses.shape, style)
        if step is not None:
            yield step


def _as_pieces(local: LocalMap, depth: int) -> Step | None:
    """The simplest form of a map: separable, or a Concat of such; one with a Gather only where there is no other."""
    forms = list(_as_one(local))
    if not forms and depth:
        forms = list(_concats(local, depth))
    return min(forms, key=_simplicity, default=None)


def _simplicity(step: Step) -> tuple[bool, float]:
    steps = list(all_steps([step]))
    return any(s.op == "Gather" for s in steps), complexity(steps)


def _concats(local: LocalMap, depth: int) -> Iterator[Step]:
    shape = local.addresses.shape
    found = {axis: cuts(local.addresses, axis, local.bounds[:-1]) for axis in range(len(shape)) if shape[axis] > 1}
    for axis, places in sorted(found.items(), key=lambda item: len(item[1])):
        if not 0 < len(places) < _MOST_PIECES:
            continue
        parts = []
        for start, end in zip([0, *places], [*places, shape[axis]], strict=True):
            part = np.take(local.addresses, range(start, end), axis)
            flat = part if 1 in shape else part.reshape([n for n in part.shape if n != 1])
            step = _as_pieces(LocalMap(flat, local.sources), depth - 1)
            if step is None:
                break
            parts.append(reshape(step, part.shape))
        else:
            yield concat(parts, axis)


def _turned(local: LocalMap) -> LocalMap | None:
    """The same map, of the source with its axes in the target's order; None where they are, or where that is not clear."""
    if len(local.sources) != 1:
        return None
    (source,) = local.sources
    strides = np.cumprod([1, *source.shape[:0:-1]])[::-1].tolist()
    long = {stride: axis for axis, stride in enumerate(strides) if source.shape[axis] > 1}
    order = [long[step] for axis in range(local.addresses.ndim) if (step := _usual_step(local.addresses, axis)) in long]
    if len(set(order)) != len(order) or order == sorted(order):
        return None
    perm: list[int] = []
    for axis in order:
        before = [
            k for k in range(axis) if k not in order and k not in perm and not any(k < other < axis for other in order)
        ]
        perm += [*before, axis]
    perm += [k for k in range(len(source.shape)) if k not in perm]
    turned = transpose(source, perm)
    if turned is source:
        return None
    origin = np.arange(source.size).reshape(source.shape).transpose(perm).reshape(-1)
    place = np.empty(source.size, np.int64)
    place[origin] = np.arange(source.size)
    return LocalMap(np.where(local.addresses < 0, -1, place[local.addresses]), (turned,))


def _usual_step(addresses: Array, axis: int) -> int:
    """The most frequent difference of neighbours along an axis."""
    lines = np.moveaxis(addresses, axis, -1).reshape(-1, addresses.shape[axis])
    sample = lines[:: max(1, lines.shape[0] // 64)]
    steps = np.diff(sample, axis=1)[(sample[:, 1:] >= 0) & (sample[:, :-1] >= 0)]
    if not steps.size:
        return 0
    values, counts = np.unique(steps, return_counts=True)
    return int(values[np.argmax(counts)])
