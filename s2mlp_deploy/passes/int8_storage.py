"""Store a graph's matrices as int8 with a scale for each row, and compute in float32.

A runtime such as LiteRT reads such weights as they are, quantizes each row of activations as it comes, and multiplies
bytes: no calibration images are needed, and no range can be too narrow. ONNX Runtime restores the weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import add_initializer, constant_of, remove_unused_initializers
from s2mlp_deploy.passes import verify_rewrite
from s2mlp_deploy.passes.float16_storage import matrices
from s2mlp_deploy.passes.precision_pass import PrecisionPass

LARGEST = 127


class StoreInt8(PrecisionPass):
    """A copy of a graph in which every matrix of a product is int8, and restored where it is read.

    Convolutions, biases and LayerNorm's vectors stay float32.

    Requires: as a :class:`PrecisionPass`.
    Ensures: each weight is the nearest to the float32 one, and nothing else changed.
    """

    def rewrite(self, graph: ir.Graph) -> None:
        for node, index in list(_products(graph)):
            _store(graph, node, index)
        remove_unused_initializers(graph)

    def differences(self, made: ir.Model, original: ir.Model) -> Iterator[str]:
        return verify_rewrite.storage_differences(made.graph, original.graph)


def _products(graph: ir.Graph) -> Iterator[tuple[ir.Node, int]]:
    """Each product and the input that is its matrix, whose rows are the layer's outputs."""
    found = matrices(graph)
    for node in graph:
        if node.op_type == "Gemm":
            turned = node.attributes["transB"].as_int() if "transB" in node.attributes else 0
            index = 1 if turned else 0
            value = node.inputs[index]
            if value is not None and value.name in found:
                yield node, index


def _store(graph: ir.Graph, node: ir.Node, index: int) -> None:
    values, name = constant_of(node.inputs[index]), f"{node.name}/weight"
    largest = np.abs(values).max(1)
    scales = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    rounded = np.clip(np.rint(values / scales[:, None]), -LARGEST, LARGEST).astype(np.int8)
    inputs = [
        add_initializer(graph, f"{name}_q", rounded),
        add_initializer(graph, f"{name}_scale", scales),
    ]
    restored = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(values.shape))
    graph.insert_before(
        node, ir.node("DequantizeLinear", inputs, {"axis": 0}, outputs=[restored], name=f"{name}/dequantize")
    )
    node.replace_input_with(index, restored)
