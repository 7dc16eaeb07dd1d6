"""Lower the shift to a lookup: a constant table holds the source of each position."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.spatial_shift.lowering import FeatureMap, Lowering, split_channels, to_tokens
from s2mlp_deploy.schema.shift import Offset, Shift, overlap
from s2mlp_deploy.schema.size import Size


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
            for i, (part, table) in enumerate(zip(split_channels(out, x, groups, 2, name), tables, strict=True))
        ]
        return to_tokens(out, out.op("Concat", parts, f"{name}/concat", axis=2), fmap, name)


def _gather_at_once(
    out: GraphBuilder, tokens: ir.Value, tables: list[np.ndarray], fmap: FeatureMap, name: str
) -> ir.Value:
    """Shift all groups, which are equally wide, with one lookup.

    A position's channels lie in memory group after group, so each group of each position is a row of its
    own: row position · groups + group comes from row source · groups + group. Nothing is cut or joined.
    """
    count = len(tables)
    sources = np.stack(tables, axis=1) * count + np.arange(count)
    x = out.op("Reshape", [tokens, _rows(out, fmap, count)], f"{name}/rows")
    indices = out.constant(f"{fmap.name}/sources", sources.reshape(-1))
    return to_tokens(out, out.op("Gather", [x, indices], f"{name}/gather", axis=1), fmap, name)


def _rows(out: GraphBuilder, fmap: FeatureMap, count: int) -> ir.Value:
    """The shape (batch, positions · ``count``, channels / ``count``)."""
    assert fmap.size is not None
    shape = np.array([-1, fmap.size[0] * fmap.size[1] * count, fmap.channels // count])
    return out.constant(f"{fmap.name}/rows_shape", shape)


def source_positions(shift: Shift, offset: Offset, size: Size) -> np.ndarray:
    """The flat index of each position's source, in a map of ``size``, for a group with ``offset``.

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
