"""Translate operators that only move values: reshapes, slices, gathers, pads."""

from __future__ import annotations

from math import prod

import numpy as np

from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_exporters.litert.layers import pad
from s2mlp_exporters.litert.model_writer import Kind, Tensor
from s2mlp_exporters.litert.translation import Constant, Emitter, Translation, int32, of_batch, of_bytes


def cut(t: Translation, x: Tensor, axis: int, span: tuple[int, int], name: str) -> Tensor:
    """``x`` from ``span[0]`` up to ``span[1]`` along ``axis``."""
    begin = [span[0] if i == axis else 0 for i in range(len(x.shape))]
    shape = tuple(span[1] - span[0] if i == axis else n for i, n in enumerate(x.shape))
    sizes = of_batch(shape, x.free)
    kind = Kind("SLICE", "SliceOptions", version=of_bytes(x))
    return t.add(kind, [x, int32("begin", begin), int32("size", sizes)], x.like(name, shape, x.free))


def joined(t: Translation, parts: list[Tensor], axis: int, name: str) -> Tensor:
    """``parts`` one after another along ``axis``."""
    first = parts[0]
    shape = tuple(sum(x.shape[axis] for x in parts) if i == axis else n for i, n in enumerate(first.shape))
    kind = Kind("CONCATENATION", "ConcatenationOptions", {"axis": axis}, of_bytes(first))
    return t.add(kind, list(parts), first.like(name, shape, first.free))


def _axis(node: Node, x: Tensor, default: int = 0) -> int:
    """The axis that ``node`` works along.

    Raises:
        CompilerError: where that is the batch's.
    """
    axis = int(node.attributes.get("axis", default)) % len(x.shape)
    if axis == x.free:
        raise node.refused("it mixes the images of a batch")
    return axis


def _transpose(t: Translation, node: Node) -> None:
    value = t.value(node.inputs[0])
    axes = node.attributes.get("perm", range(len(value.shape))[::-1])
    t.define(node.name, t.transposed(value, tuple(axes)))


def _reshape(t: Translation, node: Node) -> None:
    x = t.tensor(node.inputs[0])
    wanted = list(t.integers(node, 1))
    copied = [i for i, n in enumerate(wanted) if n == 0]
    sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    if -1 in sizes:
        sizes[sizes.index(-1)] = prod(x.shape) // prod(n for n in sizes if n != -1)
    free = None
    if x.free is not None:
        free = x.free if x.free in copied else wanted.index(-1) if -1 in wanted else None
        if free is None:
            raise node.refused("its shape leaves no room for a batch")
    table = int32("shape", of_batch(tuple(sizes), free))
    kind = Kind("RESHAPE", "ReshapeOptions", {"newShape": table.array})
    t.define(node.name, t.add(kind, [x, table], x.like(node.name, sizes, free)))


def _slice(t: Translation, node: Node) -> None:
    x = t.tensor(node.inputs[0])
    starts, ends = t.integers(node, 1), t.integers(node, 2)
    axes = t.integers(node, 3) if node.has(3) else tuple(range(len(starts)))
    if node.has(4) and set(t.integers(node, 4)) != {1}:
        raise node.refused("it skips values")
    for i, (start, end, axis) in enumerate(zip(starts, ends, axes, strict=True)):
        axis %= len(x.shape)
        if axis == x.free:
            raise node.refused("it takes some images of a batch")
        span = slice(start, end).indices(x.shape[axis])[:2]
        x = cut(t, x, axis, span, node.name if i == len(axes) - 1 else f"{node.name}/axis{axis}")
    t.define(node.name, x)


def _split(t: Translation, node: Node) -> None:
    x = t.tensor(node.inputs[0])
    axis = _axis(node, x)
    count = len(node.outputs)
    sizes = t.integers(node, 1) if node.has(1) else (-(-x.shape[axis] // count),) * count
    start = 0
    for name, size in zip(node.outputs, sizes, strict=True):
        end = min(start + size, x.shape[axis])
        t.define(name, cut(t, x, axis, (start, end), name))
        start = end


def _concat(t: Translation, node: Node) -> None:
    parts = [t.tensor(name) for name in node.inputs]
    t.define(node.name, joined(t, parts, _axis(node, parts[0]), node.name))


def _gather(t: Translation, node: Node) -> None:
    x = t.tensor(node.inputs[0])
    axis = _axis(node, x)
    rows = t.array(node, 1) % x.shape[axis]
    shape = (*x.shape[:axis], *rows.shape, *x.shape[axis + 1 :])
    free = x.free if x.free is None or x.free < axis else x.free + rows.ndim - 1
    kind = Kind("GATHER", "GatherOptions", {"axis": axis}, of_bytes(x))
    indices = Constant(node.inputs[1], rows.astype(np.int32))
    t.define(node.name, t.add(kind, [x, indices], x.like(node.name, shape, free)))


def _pad(t: Translation, node: Node) -> None:
    x = t.tensor(node.inputs[0])
    mode, pads = node.attributes.get("mode", "constant"), t.integers(node, 1)
    axes = t.integers(node, 3) if node.has(3) else tuple(range(len(x.shape)))
    around = {axis % len(x.shape): (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    widths = [around.get(i, (0, 0)) for i in range(len(x.shape))]
    if min(pads) < 0 or (x.free is not None and any(widths[x.free])):
        raise node.refused("it removes values, or adds images to a batch")
    if mode == "edge":
        t.define(node.name, _with_copies(t, x, widths, node.name))
    elif mode == "constant" and not (node.has(2) and t.array(node, 2).any()):
        t.define(node.name, pad(t, x, widths, node.name))
    else:
        raise node.refused(f"its mode is {mode}")


def _expand(t: Translation, node: Node) -> None:
    """Copies along axes of one value, as a shift in place smears it."""
    x, wanted = t.tensor(node.inputs[0]), t.integers(node, 1)
    if len(wanted) > len(x.shape):
        raise node.refused("it adds axes")
    sizes = (1,) * (len(x.shape) - len(wanted)) + wanted
    grown = [axis for axis, (n, size) in enumerate(zip(x.shape, sizes, strict=True)) if size not in (1, n)]
    if any(axis == x.free or x.shape[axis] != 1 for axis in grown):
        raise node.refused("it copies images, or more than one value along an axis")
    for axis in grown:
        x = joined(t, [x] * sizes[axis], axis, node.name if axis == grown[-1] else f"{node.name}/axis{axis}")
    t.define(node.name, x)


def _with_copies(t: Translation, x: Tensor, widths: list[tuple[int, int]], name: str) -> Tensor:
    """``x`` with copies of its borders around it: LiteRT pads with zeros or mirrors."""
    padded = [axis for axis, width in enumerate(widths) if any(width)]
    for axis in padded:
        before, after = widths[axis]
        size, place = x.shape[axis], f"{name}/axis{axis}"
        first = [cut(t, x, axis, (0, 1), f"{place}/first")] * before if before else []
        last = [cut(t, x, axis, (size - 1, size), f"{place}/last")] * after if after else []
        x = joined(t, [*first, x, *last], axis, name if axis == padded[-1] else place)
    return x


EMITTERS: dict[str, Emitter] = {
    "Concat": _concat,
    "Expand": _expand,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
}
