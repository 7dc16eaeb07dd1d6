"""Values that leave a region, and the ways to write each, at every size that was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.passes.data_movement.planner import LocalMap, plans
from s2mlp_deploy.passes.data_movement.steps import Step, reshape, source
from s2mlp_deploy.passes.data_movement.values import AddressSpace, Moved, Root
from s2mlp_deploy.schema.array import Array

_RESHAPES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""The operators that keep the order of elements in memory."""


@dataclass(frozen=True, eq=False)
class Choices:
    """The ways to write a value from ``roots``, at one size of the inputs."""

    roots: tuple[Root, ...]
    dtype: ir.DataType
    ways: tuple[Step, ...]


class Planner:
    """Plans each leaving value of one interpretation; maps that are alike share their plans.

    Without ``rows``, values are not planned as rows: the places of rows change with height and width.
    """

    def __init__(
        self,
        shape_of: Callable[[ir.Value], tuple[int, ...] | None],
        change_map: Callable[[Array], Array] | None,
        rows: bool,
    ) -> None:
        self.choices: dict[ir.Value, Choices] = {}
        self._shape_of = shape_of
        self._change_map = change_map
        self._rows = rows
        self._known: dict[tuple[object, ...], tuple[Step, ...]] = {}

    def add(self, value: ir.Value, moved: Moved, space: AddressSpace) -> None:
        """Plan ``value``."""
        addresses = moved.map if self._change_map is None else self._change_map(moved.map)
        roots = tuple(space.roots_in(addresses))
        local = np.ascontiguousarray(_local(addresses, roots)).reshape(self._widest_shape(value, moved.shape))
        key = (local.shape, *(root.shape for root in roots), blake2b(local.data).digest())
        if key not in self._known:
            sources = tuple(source(i, root.shape) for i, root in enumerate(roots))
            self._known[key] = tuple(plans(LocalMap(local, sources), self._rows))
        ways = tuple(reshape(step, moved.shape) for step in self._known[key])
        self.choices[value] = Choices(roots, moved.dtype, ways)

    def _widest_shape(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape with most axes among those that the same elements had, in the same order, on their way."""
        shapes = [shape]
        for earlier in _same_order(value):
            if (found := self._shape_of(earlier)) is not None and np.prod(found, dtype=np.int64) == np.prod(
                shape, dtype=np.int64
            ):
                shapes.append(found)
        return max(shapes, key=lambda s: (sum(n > 1 for n in s), -len(s)))


def _same_order(value: ir.Value) -> Iterator[ir.Value]:
    node = value.producer()
    while node is not None and node.op_type in _RESHAPES and node.inputs[0] is not None:
        yield node.inputs[0]
        node = node.inputs[0].producer()


def _local(addresses: Array, roots: tuple[Root, ...]) -> Array:
    """Addresses that count through ``roots`` alone."""
    if len(roots) == 1:
        base = roots[0].base
        return addresses if not base else np.where(addresses < 0, -1, addresses - base)
    result, offset = np.full(addresses.shape, -1, np.int64), 0
    for root in roots:
        inside = (addresses >= root.base) & (addresses < root.base + root.size)
        result[inside] = addresses[inside] - root.base + offset
        offset += root.size
    return result
