"""The four ways of expressing the spatial shift in ONNX.

Each lowering maps a feature map to its shifted self, bit for bit as ``shift_reference.spatial_shift``
does, or says why it cannot (:meth:`Lowering.refusal`). Feature maps travel through the graph as
tokens (batch · height · width, channels), so that the layers around the shift are plain 2-D Gemms;
a lowering reshapes to what it needs and back.

========  ================================  ===============  ====================================
name      operators                         dynamic size     exact for
========  ================================  ===============  ====================================
slice     Split, Slice, Concat (Pad)        distance 1 [1]_  all but smearing diagonals
gather    Split, Gather, Concat             no               all borders but zero
conv      (Pad,) depthwise Conv             yes              distance 1 along one axis; border zero: diagonals, too
pad       Pad, Split, Slice, Concat         yes              distance 1 along one axis; border zero: all
========  ================================  ===============  ====================================

.. [1] Any distance where the border keeps its values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.errors import LoweringError, UsageError
from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.schema.shift import Group, Offset, Shift, overlap
from s2mlp_deploy.schema.size import Size

_HEIGHT, _WIDTH, _CHANNELS = 1, 2, 3
_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class FeatureMap:
    """What a lowering knows of the map: ``size`` is None where height and width are dynamic.

    ``shape`` is the value holding [batch, height, width, channels] for reshaping tokens.
    """

    name: str
    channels: int
    size: Size | None
    shape: ir.Value


class Lowering(ABC):
    """One way of expressing the shift."""

    name: str

    @abstractmethod
    def refusal(self, shift: Shift, *, dynamic_size: bool) -> str | None:
        """Why this lowering would not be exact for ``shift``; None where it is."""

    @abstractmethod
    def emit(self, out: GraphBuilder, tokens: ir.Value, shift: Shift, fmap: FeatureMap, name: str) -> ir.Value:
        """Tokens (batch · height · width, channels) shifted; nodes are called ``name``/…"""


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
            for i, (part, group) in enumerate(zip(_split(out, x, groups, _CHANNELS, name), groups, strict=True))
        ]
        return _to_tokens(out, out.op("Concat", parts, f"{name}/concat", axis=_CHANNELS), fmap, name)

    @staticmethod
    def _smear(out: GraphBuilder, x: ir.Value, offset: Offset, fmap: FeatureMap, name: str) -> ir.Value:
        """Every position takes the value of the border that the group moves away from."""
        axis = _HEIGHT if offset[0] else _WIDTH
        border = _slice(out, x, axis, 0, 1, f"{name}/border")
        return out.op("Expand", [border, _extent(out, fmap, axis)], f"{name}/smear")


class GatherLowering(Lowering):
    """Look each position's source up in a constant table."""

    name = "gather"

    def refusal(self, shift: Shift, *, dynamic_size: bool) -> str | None:
        if shift.border == "zero":
            return "it looks up positions of the map, and none of them holds the zeros of its border"
        return "its table of positions is written for one image size" if dynamic_size else None

    def emit(self, out: GraphBuilder, tokens: ir.Value, shift: Shift, fmap: FeatureMap, name: str) -> ir.Value:
        assert fmap.size is not None
        groups = shift.groups(fmap.channels)
        tables = [source_positions(shift, group.offset, fmap.size).reshape(-1) for group in groups]
        if len({group.stop - group.start for group in groups}) == 1:
            return _gather_at_once(out, tokens, tables, fmap, name)
        x = out.op("Reshape", [tokens, _rows(out, fmap, 1)], f"{name}/positions")
        parts = [
            out.op("Gather", [part, out.constant(f"{fmap.name}/sources{i}", table)], f"{name}/group{i}/gather", axis=1)
            for i, (part, table) in enumerate(zip(_split(out, x, groups, 2, name), tables, strict=True))
        ]
        return _to_tokens(out, out.op("Concat", parts, f"{name}/concat", axis=2), fmap, name)


def _gather_at_once(
    out: GraphBuilder, tokens: ir.Value, tables: list[np.ndarray], fmap: FeatureMap, name: str
) -> ir.Value:
    """All groups in one lookup, where they are equally wide.

    A position's channels lie in memory group after group, so each group of each position is a row of its
    own: row position · groups + group comes from row source · groups + group. Nothing is cut or joined.
    """
    count = len(tables)
    sources = np.stack(tables, axis=1) * count + np.arange(count)
    x = out.op("Reshape", [tokens, _rows(out, fmap, count)], f"{name}/rows")
    indices = out.constant(f"{fmap.name}/sources", sources.reshape(-1))
    return _to_tokens(out, out.op("Gather", [x, indices], f"{name}/gather", axis=1), fmap, name)


def _rows(out: GraphBuilder, fmap: FeatureMap, count: int) -> ir.Value:
    """The shape (batch, positions · ``count``, channels / ``count``)."""
    assert fmap.size is not None
    shape = np.array([-1, fmap.size[0] * fmap.size[1] * count, fmap.channels // count])
    return out.constant(f"{fmap.name}/rows_shape", shape)


class _PaddingLowering(Lowering):
    """Lowerings that pad the map: replicate padding by one equals "keep" at distance 1, zeros are zeros at any."""

    def refusal(self, shift: Shift, *, dynamic_size: bool) -> str | None:
        if shift.border == "wrap":
            return "its padding repeats the border or writes zeros, and wrapping is neither"
        if shift.border == "zero":
            return None
        for offset in shift.offsets:
            if sum(map(abs, offset)) > 1:
                return (
                    f"a group moves by {offset}, and beyond distance 1 along one axis replicate padding is not the "
                    "shift: at the border positions keep their own value"
                )
            if shift.smears(offset):
                return (
                    "under in-place semantics the border's value reaches every position, and "
                    f"{self.name} looks at direct neighbours only"
                )
        return None


class ConvLowering(_PaddingLowering):
    """A depthwise 3×3 convolution with one 1 in each kernel, after replicate padding or with zeros around."""

    name = "conv"

    def refusal(self, shift: Shift, *, dynamic_size: bool) -> str | None:
        far = next((o for o in shift.offsets if max(map(abs, o)) > 1), None)
        if shift.border == "zero" and far:
            return f"a group moves by {far}, further than a 3×3 kernel reaches"
        return super().refusal(shift, dynamic_size=dynamic_size)

    def emit(self, out: GraphBuilder, tokens: ir.Value, shift: Shift, fmap: FeatureMap, name: str) -> ir.Value:
        c = fmap.channels
        kernels = np.zeros((c, 1, 3, 3), np.float32)
        for group in shift.groups(c):
            dh, dw = group.offset
            kernels[group.start : group.stop, 0, 1 - dh, 1 - dw] = 1
        weight = out.constant(f"{fmap.name}/shift_kernels", kernels)
        x = out.op("Reshape", [tokens, fmap.shape], f"{name}/map")
        x = out.op("Transpose", [x], f"{name}/to_nchw", perm=[0, 3, 1, 2])
        if shift.border == "zero":
            x = out.op("Conv", [x, weight], f"{name}/conv", group=c, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        else:
            pads = out.constant("pad_nchw", np.array([0, 0, 1, 1, 0, 0, 1, 1]))
            x = out.op("Pad", [x, pads], f"{name}/pad", mode="edge")
            x = out.op("Conv", [x, weight], f"{name}/conv", group=c, kernel_shape=[3, 3])
        x = out.op("Transpose", [x], f"{name}/to_nhwc", perm=[0, 2, 3, 1])
        return _to_tokens(out, x, fmap, name)


class PadLowering(_PaddingLowering):
    """Pad once for all groups, then one window of that for each."""

    name = "pad"

    def emit(self, out: GraphBuilder, tokens: ir.Value, shift: Shift, fmap: FeatureMap, name: str) -> ir.Value:
        x = out.op("Reshape", [tokens, fmap.shape], f"{name}/map")
        far_h, far_w = (max(abs(o[axis]) for o in shift.offsets) if shift.border == "zero" else 1 for axis in (0, 1))
        pads = out.constant("pad_nhwc", np.array([0, far_h, far_w, 0, 0, far_h, far_w, 0]))
        x = out.op("Pad", [x, pads], f"{name}/pad", mode="constant" if shift.border == "zero" else "edge")
        groups = shift.groups(fmap.channels)
        parts = []
        for i, (part, (dh, dw)) in enumerate(
            zip(_split(out, x, groups, _CHANNELS, name), (g.offset for g in groups), strict=True)
        ):
            # Padded position p holds x[p - far], so the window for an offset d starts at far - d and
            # leaves far + d rows or columns at the end.
            first, left = (far_h - dh, far_w - dw), (far_h + dh, far_w + dw)
            starts = out.constant("window_start{}_{}".format(*first), np.array(first))
            ends = out.constant("window_end{}_{}".format(*left), np.array([-n if n else _END for n in left]))
            axes = out.constant("axes_hw", np.array([_HEIGHT, _WIDTH]))
            parts.append(out.op("Slice", [part, starts, ends, axes], f"{name}/group{i}/window"))
        return _to_tokens(out, out.op("Concat", parts, f"{name}/concat", axis=_CHANNELS), fmap, name)


LOWERINGS: dict[str, Lowering] = {
    lowering.name: lowering for lowering in (GatherLowering(), SliceLowering(), PadLowering(), ConvLowering())
}
"""All lowerings by name, fastest on ONNX Runtime's CPU provider first."""


def choose(name: str, shifts: Sequence[Shift], *, dynamic_size: bool) -> Lowering:
    """The lowering called ``name``, or for ``auto`` the fastest one that is exact for all ``shifts``.

    Raises:
        LoweringError: where the one asked for, or every one, would not be exact.
        UsageError: where there is none of that name.
    """
    refusals = {
        n: next(filter(None, (lowering.refusal(shift, dynamic_size=dynamic_size) for shift in shifts)), None)
        for n, lowering in LOWERINGS.items()
    }
    exact = [n for n, reason in refusals.items() if reason is None]
    if name == "auto":
        if not exact:
            reasons = "; ".join(f"{n}: {reason}" for n, reason in refusals.items())
            raise LoweringError(f"no lowering of the shift is exact here ({reasons}). Leave out --dynamic-size")
        return LOWERINGS[exact[0]]
    if name not in LOWERINGS:
        raise UsageError(f"unknown lowering {name!r}: expected auto, {', '.join(LOWERINGS)}")
    if reason := refusals[name]:
        raise LoweringError(
            f"--shift {name} would change the model's predictions: {reason}. "
            + (f"Use --shift {' or '.join(exact)}." if exact else "Leave out --dynamic-size and use --shift gather.")
        )
    return LOWERINGS[name]


def source_positions(shift: Shift, offset: Offset, size: Size) -> np.ndarray:
    """For each position of a map of ``size``, the flat index of the value that a group with ``offset`` has there afterwards.

    int64 (height, width). Where it smears, the assignment reads what it has already written, in
    ascending order: row by row, or column by column for a group that moves along the width alone.
    The border must be one that holds values of the map.
    """
    result = np.arange(size[0] * size[1]).reshape(size)
    if shift.border == "wrap":
        return np.roll(result, offset, (0, 1))
    (to_h, to_w), (of_h, of_w) = overlap(offset, size)
    if not shift.smears(offset):
        result[to_h, to_w] = result[of_h, of_w].copy()
    elif offset[0]:
        for h in range(*to_h.indices(size[0])):
            result[h, to_w] = result[h - offset[0], of_w].copy()
    else:
        for w in range(*to_w.indices(size[1])):
            result[:, w] = result[:, w - offset[1]]
    return result


def _keep(out: GraphBuilder, x: ir.Value, offset: Offset, size: Size | None, name: str) -> ir.Value:
    """``x`` (batch, height, width, c) moved by ``offset``; where nothing moves in, x itself stays.

    A move along height by Δh > 0 is [first Δh rows, all but the last Δh rows]; a diagonal one does
    the same along width inside the rows that receive something.
    """
    dh, dw = offset
    moved = x
    keep = x
    if dh:
        moved = _without(out, x, _HEIGHT, dh, f"{name}/rows")
        keep = _without(out, x, _HEIGHT, -dh, f"{name}/kept_rows") if dw else x
    if dw:
        inner = _without(out, moved, _WIDTH, dw, f"{name}/columns")
        border = _border(out, keep, _WIDTH, dw, f"{name}/border_columns")
        moved = _join(out, border, inner, _WIDTH, dw, f"{name}/join_columns")
    if dh:
        border = _border(out, x, _HEIGHT, dh, f"{name}/border_rows")
        moved = _join(out, border, moved, _HEIGHT, dh, f"{name}/join_rows")
    return moved


def _zero(out: GraphBuilder, x: ir.Value, offset: Offset, size: Size | None, name: str) -> ir.Value:
    """The same with zeros where nothing moves in: what stays inside the map, padded on the side that it leaves."""
    if size:  # a move beyond the map is one out of it
        offset = (_clamp(offset[0], size[0]), _clamp(offset[1], size[1]))
    for axis, delta in zip((_HEIGHT, _WIDTH), offset, strict=True):
        if delta:
            x = _without(out, x, axis, delta, f"{name}/{_LINES[axis]}")
    if offset == (0, 0):
        return x
    before, after = ([0, *(max(sign * d, 0) for d in offset), 0] for sign in (1, -1))
    pads = out.constant("pads" + "_".join(map(str, before + after)), np.array(before + after))
    return out.op("Pad", [x, pads], f"{name}/zeros")


def _wrap(out: GraphBuilder, x: ir.Value, offset: Offset, size: Size | None, name: str) -> ir.Value:
    """The same on a torus: what leaves on one side comes in on the other."""
    for axis, delta in zip((_HEIGHT, _WIDTH), offset, strict=True):
        if size:
            delta = int(math.fmod(delta, size[axis - 1]))
        if delta:
            line = f"{name}/{_LINES[axis]}"
            parts = [_slice(out, x, axis, -delta, _END, f"{line}_in"), _slice(out, x, axis, 0, -delta, line)]
            x = out.op("Concat", parts, f"{name}/join_{_LINES[axis]}", axis=axis)
    return x


_MOVE = {"keep": _keep, "zero": _zero, "wrap": _wrap}
"""How slices move a group, by what its border gets."""

_LINES = {_HEIGHT: "rows", _WIDTH: "columns"}


def _clamp(delta: int, most: int) -> int:
    return max(-most, min(most, delta))


def _without(out: GraphBuilder, x: ir.Value, axis: int, delta: int, name: str) -> ir.Value:
    """What is left when a move by ``delta`` pushes |delta| rows or columns out."""
    return _slice(out, x, axis, 0, -delta, name) if delta > 0 else _slice(out, x, axis, -delta, _END, name)


def _border(out: GraphBuilder, x: ir.Value, axis: int, delta: int, name: str) -> ir.Value:
    """The |delta| rows or columns that nothing moves into."""
    return _slice(out, x, axis, 0, delta, name) if delta > 0 else _slice(out, x, axis, delta, _END, name)


def _join(out: GraphBuilder, border: ir.Value, moved: ir.Value, axis: int, delta: int, name: str) -> ir.Value:
    return out.op("Concat", [border, moved] if delta > 0 else [moved, border], name, axis=axis)


def _slice(out: GraphBuilder, x: ir.Value, axis: int, start: int, stop: int, name: str) -> ir.Value:
    def index(n: int) -> ir.Value:
        return out.constant("end" if n == _END else f"index{n}", np.array([n]))

    return out.op("Slice", [x, index(start), index(stop), index(axis)], name)


def _split(out: GraphBuilder, x: ir.Value, groups: tuple[Group, ...], axis: int, name: str) -> list[ir.Value]:
    if len(groups) == 1:
        return [x]
    widths = [g.stop - g.start for g in groups]
    sizes = out.constant("groups_" + "_".join(map(str, widths)), np.array(widths))
    return out.ops("Split", [x, sizes], f"{name}/split", len(groups), axis=axis)


def _extent(out: GraphBuilder, fmap: FeatureMap, axis: int) -> ir.Value:
    """A shape to expand to: the map's extent along ``axis`` and 1 elsewhere."""
    name = f"{fmap.name}/extent{axis}"
    if fmap.size is not None:
        return out.constant(name, np.array([fmap.size[i - 1] if i == axis else 1 for i in range(4)]))
    if known := out.find(name):
        return known
    one = out.constant("index1", np.array([1]))
    length = out.op("Slice", [fmap.shape, out.constant(f"index{axis}", np.array([axis])),
                              out.constant(f"index{axis + 1}", np.array([axis + 1]))], f"{name}/length")  # fmt: skip
    return out.op("Concat", [length if i == axis else one for i in range(4)], name, axis=0)


def _to_tokens(out: GraphBuilder, x: ir.Value, fmap: FeatureMap, name: str) -> ir.Value:
    shape = out.constant(f"tokens{fmap.channels}", np.array([-1, fmap.channels]))
    return out.op("Reshape", [x, shape], f"{name}/tokens")
