"""Round a graph to bfloat16, which has float32's range: nothing overflows that did not before."""

from __future__ import annotations

import onnx_ir as ir

from s2mlp_deploy.graph.builder import insert_cast
from s2mlp_deploy.passes.precision_pass import RoundingPass, narrow


class ToBfloat16(RoundingPass):
    """A copy of a graph whose weights, activations and logits are bfloat16.

    The input stays float32, and so do convolutions, which ONNX has in bfloat16 from opset 22 on.
    """

    def rewrite(self, graph: ir.Graph) -> None:
        convolutions = [node for node in graph if node.op_type == "Conv"]
        narrow(graph, ir.DataType.BFLOAT16, {v.name for node in convolutions for v in node.inputs[1:] if v is not None})
        for node in convolutions:
            _compute_in_float32(graph, node)


def _compute_in_float32(graph: ir.Graph, node: ir.Node) -> None:
    """Put ``node`` between casts; the graph's own input is float32 already."""
    x, (y,) = node.inputs[0], node.outputs
    assert x is not None
    if x is not graph.inputs[0]:
        insert_cast(graph, x, ir.DataType.FLOAT, f"{node.name}/x/float32", [node])
    y.type = ir.TensorType(ir.DataType.FLOAT)
    insert_cast(graph, y, ir.DataType.BFLOAT16, f"{node.name}/bfloat16")
