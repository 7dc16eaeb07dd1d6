"""Lower the shift to one padded map, of which each group takes a window."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.spatial_shift.lowering import (
    CHANNELS,
    END,
    HEIGHT,
    WIDTH,
    FeatureMap,
    split_channels,
    to_tokens,
)
from s2mlp_deploy.graph.spatial_shift.padding import PaddingLowering
from s2mlp_deploy.schema.shift import Shift


class PadLowering(PaddingLowering):
    """Pad once for all groups, then one window of that for each."""

    name = "pad"

    def emit(self, out: GraphBuilder, tokens: ir.Value, shift: Shift, fmap: FeatureMap, name: str) -> ir.Value:
        x = out.op("Reshape", [tokens, fmap.shape], f"{name}/map")
        far_h, far_w = (max(abs(o[axis]) for o in shift.offsets) if shift.border == "zero" else 1 for axis in (0, 1))
        pads = out.integers("pad_nhwc", 0, far_h, far_w, 0, 0, far_h, far_w, 0)
        x = out.op("Pad", [x, pads], f"{name}/pad", mode="constant" if shift.border == "zero" else "edge")
        groups = shift.groups(fmap.channels)
        parts = []
        for i, (part, (dh, dw)) in enumerate(
            zip(split_channels(out, x, groups, CHANNELS, name), (g.offset for g in groups), strict=True)
        ):
            # Padded position p holds x[p - far], so the window for an offset d starts at far - d and
            # leaves far + d rows or columns at the end.
            first, left = (far_h - dh, far_w - dw), (far_h + dh, far_w + dw)
            starts = out.constant("window_start{}_{}".format(*first), np.array(first))
            ends = out.integers("window_end{}_{}".format(*left), *(-n if n else END for n in left))
            axes = out.integers("axes_hw", HEIGHT, WIDTH)
            parts.append(out.op("Slice", [part, starts, ends, axes], f"{name}/group{i}/window"))
        return to_tokens(out, out.op("Concat", parts, f"{name}/concat", axis=CHANNELS), fmap, name)
