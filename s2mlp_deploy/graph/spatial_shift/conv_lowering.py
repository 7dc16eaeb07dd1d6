"""Lower the shift to a depthwise convolution whose kernels are one-hot."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.spatial_shift.lowering import FeatureMap, to_tokens
from s2mlp_deploy.graph.spatial_shift.padding import PaddingLowering
from s2mlp_deploy.schema.shift import Shift


class ConvLowering(PaddingLowering):
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
            pads = out.integers("pad_nchw", 0, 0, 1, 1, 0, 0, 1, 1)
            x = out.op("Pad", [x, pads], f"{name}/pad", mode="edge")
            x = out.op("Conv", [x, weight], f"{name}/conv", group=c, kernel_shape=[3, 3])
        x = out.op("Transpose", [x], f"{name}/to_nhwc", perm=[0, 2, 3, 1])
        return to_tokens(out, x, fmap, name)
