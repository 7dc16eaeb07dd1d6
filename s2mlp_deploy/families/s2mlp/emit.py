"""From a spec and its weights to an ONNX graph, layer by layer, without tracing.

Between the reshapes around convolutions and shifts, feature maps are tokens
(batch · height · width, channels): every channel MLP is a 2-D Gemm on the checkpoint's own weight
matrix (``transB``), which runtimes map to their fastest kernels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import GraphBuilder
from s2mlp_deploy.graph.lowered import INPUT, IR_VERSION, OPSET, OUTPUT, Axes
from s2mlp_deploy.graph.position_mean import emit_mean
from s2mlp_deploy.graph.spatial_shift import FeatureMap, Lowering
from s2mlp_deploy.schema.spec import Spec, Stage


def emit(spec: Spec, weights: Mapping[str, np.ndarray], lowering: Lowering, axes: Axes) -> ir.Model:
    """The graph of ``spec`` with ``weights`` (canonical names; shared, not copied, where float32).

    Input ``input`` (batch, channels, height, width) float32, output ``logits`` (batch, classes).
    """
    out = GraphBuilder()

    def parameter(name: str) -> ir.Value | None:
        if name not in weights:
            return None
        return out.constant(name.replace("stages.", "stage"), np.asarray(weights[name], np.float32))

    def fc(x: ir.Value, layer: str, name: str) -> ir.Value:
        inputs = [x, parameter(f"{layer}.weight"), parameter(f"{layer}.bias")]
        return out.op("Gemm", inputs if inputs[2] else inputs[:2], name, transB=1)

    def norm(x: ir.Value, layer: str, name: str) -> ir.Value:
        inputs = [x, parameter(f"{layer}.weight"), parameter(f"{layer}.bias")]
        return out.op(
            "LayerNormalization", inputs if inputs[2] else inputs[:2], name, axis=-1, epsilon=spec.norm_epsilon
        )

    def block(x: ir.Value, fmap: FeatureMap, layer: str, name: str) -> ir.Value:
        y = norm(x, f"{layer}.norm1", f"{name}/norm1")
        y = out.op("Gelu", [fc(y, f"{layer}.fc1", f"{name}/fc1")], f"{name}/gelu1")
        y = lowering.emit(out, y, spec.shift, fmap, f"{name}/shift")
        x = out.op("Add", [x, fc(y, f"{layer}.fc2", f"{name}/fc2")], f"{name}/add1")
        y = norm(x, f"{layer}.norm2", f"{name}/norm2")
        y = out.op("Gelu", [fc(y, f"{layer}.fc3", f"{name}/fc3")], f"{name}/gelu2")
        return out.op("Add", [x, fc(y, f"{layer}.fc4", f"{name}/fc4")], name)

    def embedding(x: ir.Value, stage: Stage, layer: str, name: str) -> ir.Value:
        e = stage.embedding
        inputs = [x, parameter(f"{layer}.weight"), parameter(f"{layer}.bias")]
        return out.op(
            "Conv", inputs if inputs[2] else inputs[:2], f"{name}/conv",
            kernel_shape=list(e.kernel), strides=list(e.stride), pads=[*e.padding, *e.padding],
        )  # fmt: skip

    images = ir.Value(name=INPUT, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(axes.shape(spec.in_channels)))
    x = images
    sizes = spec.map_sizes(axes.size) if axes.size else None
    for s, stage in enumerate(spec.stages):
        name, c = f"stage{s}", stage.channels
        x = embedding(x, stage, f"stages.{s}.embedding", f"{name}/embedding")
        x = out.op("Transpose", [x], f"{name}/embedding/nhwc", perm=[0, 2, 3, 1])
        if sizes:
            shape = out.constant(f"{name}/map_shape", np.array([-1, *sizes[s], c]))
        else:
            shape = out.op("Shape", [x], f"{name}/map_shape")
        fmap = FeatureMap(name, c, sizes[s] if sizes else None, shape)
        tokens = f"{name}/embedding/tokens" if stage.stem_norm else f"{name}/embedding"
        x = out.op("Reshape", [x, out.constant(f"tokens{c}", np.array([-1, c]))], tokens)
        if stage.stem_norm:
            x = norm(x, f"stages.{s}.stem_norm", f"{name}/embedding")
        for b in range(stage.depth):
            x = block(x, fmap, f"stages.{s}.blocks.{b}", f"{name}/block{b:02d}")
        if s + 1 < len(spec.stages):
            x = out.op("Reshape", [x, shape], f"{name}/map")
            x = out.op("Transpose", [x], f"{name}/nchw", perm=[0, 3, 1, 2])
    if spec.final_norm and not spec.norm_after_mean:
        x = norm(x, "head.norm", "head/norm")
    x = emit_mean(out, x, fmap, "head/mean")
    if spec.norm_after_mean:
        x = norm(x, "head.norm", "head/norm")
    logits = fc(x, "head.fc", OUTPUT)
    logits.type, logits.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([axes.batch or "batch", spec.classes])
    graph = ir.Graph(
        [images], [logits], nodes=out.nodes, initializers=list(out.initializers.values()),
        opset_imports={"": OPSET}, name="s2mlp",
    )  # fmt: skip
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="s2mlp-deploy")
