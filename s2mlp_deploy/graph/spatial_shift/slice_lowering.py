"""Lower the shift to slices: cut each group along the axis it moves on, and join the pieces."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.spatial_shift.lowering import (
    CHANNELS,
    END,
    HEIGHT,
    WIDTH,
    FeatureMap,
    Lowering,
    split_channels,
    to_tokens,
)
from s2mlp_deploy.schema.shift import Offset, Shift
from s2mlp_deploy.schema.size import Size


class SliceLowering(Lowering):
    """Cut each group along the axis it moves on and put the pieces together again."""

    name = "slice"

    def refusal(self, shift: Shift, *, dynamic_size: bool) -> str | None:
        for offset in shift.offsets:
            if dynamic_size and shift.border != "keep" and max(map(abs, offset)) > 1:
                return (
                    f"a group moves by {offset}, which may be further than a map of any size reaches, and its cuts for border "
                    f"{shift.border} are written for larger ones"
                )
            if shift.smears(offset) and (0 not in offset or max(map(abs, offset)) > 1):
                return (
                    f"under in-place semantics a group that moves by {offset} smears values along a line that slices "
                    "cannot follow"
                )
        return None

    def emit(self, out: GraphBuilder, tokens: ir.Value, shift: Shift, fmap: FeatureMap, name: str) -> ir.Value:
        x = out.op("Reshape", [tokens, fmap.shape], f"{name}/map")
        groups = shift.groups(fmap.channels)
        parts = [
            self._smear(out, part, group.offset, fmap, f"{name}/group{i}")
            if shift.smears(group.offset)
            else _MOVE[shift.border](out, part, group.offset, fmap.size, f"{name}/group{i}")
            for i, (part, group) in enumerate(zip(split_channels(out, x, groups, CHANNELS, name), groups, strict=True))
        ]
        return to_tokens(out, out.op("Concat", parts, f"{name}/concat", axis=CHANNELS), fmap, name)

    @staticmethod
    def _smear(out: GraphBuilder, x: ir.Value, offset: Offset, fmap: FeatureMap, name: str) -> ir.Value:
        """Every position takes the value of the border that the group moves away from."""
        axis = HEIGHT if offset[0] else WIDTH
        border = _slice(out, x, axis, 0, 1, f"{name}/border")
        return out.op("Expand", [border, _extent(out, fmap, axis)], f"{name}/smear")


def _keep(out: GraphBuilder, x: ir.Value, offset: Offset, size: Size | None, name: str) -> ir.Value:
    """``x`` (batch, height, width, c) moved by ``offset``; where nothing moves in, x itself stays.

    A move along height by Δh > 0 is [first Δh rows, all but the last Δh rows]; a diagonal one does
    the same along width inside the rows that receive something.
    """
    dh, dw = offset
    moved = x
    keep = x
    if dh:
        moved = _without(out, x, HEIGHT, dh, f"{name}/rows")
        keep = _without(out, x, HEIGHT, -dh, f"{name}/kept_rows") if dw else x
    if dw:
        inner = _without(out, moved, WIDTH, dw, f"{name}/columns")
        border = _border(out, keep, WIDTH, dw, f"{name}/border_columns")
        moved = _join(out, border, inner, WIDTH, dw, f"{name}/join_columns")
    if dh:
        border = _border(out, x, HEIGHT, dh, f"{name}/border_rows")
        moved = _join(out, border, moved, HEIGHT, dh, f"{name}/join_rows")
    return moved


def _zero(out: GraphBuilder, x: ir.Value, offset: Offset, size: Size | None, name: str) -> ir.Value:
    """``x`` moved by ``offset``, zero where nothing moves in: the remaining part, padded on the side that it leaves."""
    if size:  # a move beyond the map is one out of it
        offset = (_clamp(offset[0], size[0]), _clamp(offset[1], size[1]))
    for axis, delta in zip((HEIGHT, WIDTH), offset, strict=True):
        if delta:
            x = _without(out, x, axis, delta, f"{name}/{_LINES[axis]}")
    if offset == (0, 0):
        return x
    before, after = ([0, *(max(sign * d, 0) for d in offset), 0] for sign in (1, -1))
    pads = out.constant("pads" + "_".join(map(str, before + after)), np.array(before + after))
    return out.op("Pad", [x, pads], f"{name}/zeros")


def _wrap(out: GraphBuilder, x: ir.Value, offset: Offset, size: Size | None, name: str) -> ir.Value:
    """``x`` moved by ``offset`` on a torus: values that leave on one side enter on the other."""
    for axis, delta in zip((HEIGHT, WIDTH), offset, strict=True):
        if size:
            delta = int(math.fmod(delta, size[axis - 1]))
        if delta:
            line = f"{name}/{_LINES[axis]}"
            parts = [_slice(out, x, axis, -delta, END, f"{line}_in"), _slice(out, x, axis, 0, -delta, line)]
            x = out.op("Concat", parts, f"{name}/join_{_LINES[axis]}", axis=axis)
    return x


_MOVE = {"keep": _keep, "zero": _zero, "wrap": _wrap}
"""The function that moves a group by slices, for each border rule."""

_LINES = {HEIGHT: "rows", WIDTH: "columns"}


def _clamp(delta: int, most: int) -> int:
    return max(-most, min(most, delta))


def _without(out: GraphBuilder, x: ir.Value, axis: int, delta: int, name: str) -> ir.Value:
    """The rows or columns that remain when a move by ``delta`` pushes |delta| of them out."""
    return _slice(out, x, axis, 0, -delta, name) if delta > 0 else _slice(out, x, axis, -delta, END, name)


def _border(out: GraphBuilder, x: ir.Value, axis: int, delta: int, name: str) -> ir.Value:
    """The |delta| rows or columns that nothing moves into."""
    return _slice(out, x, axis, 0, delta, name) if delta > 0 else _slice(out, x, axis, delta, END, name)


def _join(out: GraphBuilder, border: ir.Value, moved: ir.Value, axis: int, delta: int, name: str) -> ir.Value:
    return out.op("Concat", [border, moved] if delta > 0 else [moved, border], name, axis=axis)


def _slice(out: GraphBuilder, x: ir.Value, axis: int, start: int, stop: int, name: str) -> ir.Value:
    def index(n: int) -> ir.Value:
        return out.integers("end" if n == END else f"index{n}", n)

    return out.op("Slice", [x, index(start), index(stop), index(axis)], name)


def _extent(out: GraphBuilder, fmap: FeatureMap, axis: int) -> ir.Value:
    """A shape to expand to: the map's extent along ``axis`` and 1 elsewhere."""
    name = f"{fmap.name}/extent{axis}"
    if fmap.size is not None:
        return out.constant(name, np.array([fmap.size[i - 1] if i == axis else 1 for i in range(4)]))
    if known := out.find(name):
        return known
    one = out.integers("index1", 1)
    length = out.op(
        "Slice",
        [fmap.shape, out.integers(f"index{axis}", axis), out.integers(f"index{axis + 1}", axis + 1)],
        f"{name}/length",
    )
    return out.op("Concat", [length if i == axis else one for i in range(4)], name, axis=0)
