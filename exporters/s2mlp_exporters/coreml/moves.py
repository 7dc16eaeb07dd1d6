"""Translate operators that only move values: reshapes, slices, gathers, pads."""

from __future__ import annotations

from math import prod

import numpy as np

from s2mlp_deploy.formats.onnx_node import Node
from s2mlp_exporters.coreml.translation import CHANNELS_FIRST, Constant, Emitter, Pixels, Translation, Var, sizes


def _axis(node: Node, x: Var, default: int = 0) -> int:
    """The axis that ``node`` works along.

    Raises:
        CompilerError: where that is the batch's.
    """
    axis = int(node.attributes.get("axis", default)) % len(x.shape)
    if axis == sizes(x)[1]:
        raise node.refused("it mixes the images of a batch")
    return axis


def _transpose(t: Translation, node: Node) -> None:
    value = t.value(node.inputs[0])
    if isinstance(value, Pixels) and tuple(node.attributes.get("perm", ())) == CHANNELS_FIRST:
        t.define(node.name, value.planes)
        return
    x = value if isinstance(value, Constant) else t.var(node, 0)
    axes = tuple(node.attributes.get("perm", range(len(x.shape))[::-1]))
    if isinstance(value, Constant):
        t.define(node.name, value.transposed(axes))
    else:
        t.define(node.name, t.mb.transpose(x=x, perm=list(axes), name=t.label(node.name)))


def _reshape(t: Translation, node: Node) -> None:
    x = t.var(node, 0)
    shape, free = sizes(x)
    wanted = list(t.integers(node, 1))
    copied = [i for i, n in enumerate(wanted) if n == 0]
    made = [shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    if -1 in made:
        made[made.index(-1)] = prod(shape) // prod(n for n in made if n != -1)
    if free is not None:
        grows = free if free in copied else wanted.index(-1) if -1 in wanted else None
        if grows is None:
            raise node.refused("its shape leaves no room for a batch")
        made[grows] = -1
    t.define(node.name, t.mb.reshape(x=x, shape=made, name=t.label(node.name)))


def cut(t: Translation, x: Var, spans: dict[int, tuple[int, int]], name: str) -> Var:
    """``x`` from the first up to the second of ``spans`` along each axis that has one."""
    axes = range(len(x.shape))
    whole = [i not in spans for i in axes]
    begin, end = ([spans[i][part] if i in spans else 0 for i in axes] for part in (0, 1))
    return t.mb.slice_by_index(x=x, begin=begin, end=end, begin_mask=whole, end_mask=whole, name=t.label(name))


def _slice(t: Translation, node: Node) -> None:
    x = t.var(node, 0)
    shape, free = sizes(x)
    starts, ends = t.integers(node, 1), t.integers(node, 2)
    axes = t.integers(node, 3) if node.has(3) else tuple(range(len(starts)))
    if node.has(4) and set(t.integers(node, 4)) != {1}:
        raise node.refused("it skips values")
    spans = {
        axis % len(shape): slice(start, end).indices(shape[axis])[:2]
        for start, end, axis in zip(starts, ends, axes, strict=True)
    }
    if free in spans:
        raise node.refused("it takes some images of a batch")
    t.define(node.name, cut(t, x, spans, node.name))


def _split(t: Translation, node: Node) -> None:
    x = t.var(node, 0)
    axis, count = _axis(node, x), len(node.outputs)
    whole = int(x.shape[axis])
    parts = t.integers(node, 1) if node.has(1) else (-(-whole // count),) * count
    start = 0
    for name, size in zip(node.outputs, parts, strict=True):
        end = min(start + size, whole)
        t.define(name, cut(t, x, {axis: (start, end)}, name))
        start = end


def _concat(t: Translation, node: Node) -> None:
    parts = [t.var(node, i) for i in range(len(node.inputs))]
    t.define(node.name, t.mb.concat(values=parts, axis=_axis(node, parts[0]), name=t.label(node.name)))


def _gather(t: Translation, node: Node) -> None:
    x = t.var(node, 0)
    axis = _axis(node, x)
    rows = (t.array(node, 1) % int(x.shape[axis])).astype(np.int32)
    indices = t.written(Constant(node.inputs[1], rows))
    t.define(node.name, t.mb.gather(x=x, indices=indices, axis=axis, name=t.label(node.name)))


def _pad(t: Translation, node: Node) -> None:
    x = t.var(node, 0)
    rank, free = len(x.shape), sizes(x)[1]
    mode, pads = node.attributes.get("mode", "constant"), t.integers(node, 1)
    axes = t.integers(node, 3) if node.has(3) else tuple(range(rank))
    around = {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    widths = [around.get(i, (0, 0)) for i in range(rank)]
    if min(pads) < 0 or (free is not None and any(widths[free])):
        raise node.refused("it removes values, or adds images to a batch")
    if mode == "edge":
        t.define(node.name, _with_copies(t, x, widths, node.name))
    elif mode == "constant" and not (node.has(2) and t.array(node, 2).any()):
        zero = np.float16(0) if x.dtype.__name__ == "fp16" else np.float32(0)
        flat = [n for pair in widths for n in pair]
        t.define(node.name, t.mb.pad(x=x, pad=flat, mode="constant", constant_val=zero, name=t.label(node.name)))
    else:
        raise node.refused(f"its mode is {mode}")


def _with_copies(t: Translation, x: Var, widths: list[tuple[int, int]], name: str) -> Var:
    """``x`` with copies of its borders around it: MIL copies borders of the last two axes alone."""
    padded = [axis for axis, width in enumerate(widths) if any(width)]
    for axis in padded:
        before, after = widths[axis]
        size, place = int(x.shape[axis]), f"{name}/axis{axis}"
        first = [cut(t, x, {axis: (0, 1)}, f"{place}/first")] * before if before else []
        last = [cut(t, x, {axis: (size - 1, size)}, f"{place}/last")] * after if after else []
        label = t.label(name if axis == padded[-1] else place)
        x = t.mb.concat(values=[*first, x, *last], axis=axis, name=label)
    return x


EMITTERS: dict[str, Emitter] = {
    "Concat": _concat,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
}
