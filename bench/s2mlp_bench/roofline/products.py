"""A graph's matrix products alone: the bound that everything between them is measured against.

The twin holds the blocks' products of a graph with their own weights, scales and types, and nothing
else, so that a runtime picks the same kernels for them. Each reads an input of the twin, so nothing
can be computed ahead, and writes an output of it.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from s2mlp_deploy.families.registry import family_of
from s2mlp_deploy.graph.lowered import Lowered


def products(lowered: Lowered) -> Lowered:
    """The blocks' matrix products of ``lowered``.

    Products that read the same shape and type share an input (tokens, channels), uint8 where the
    activations are quantized; each one's output (tokens, channels) is an output, in the order of computation.
    """
    model = lowered.model.clone()
    graph = model.graph
    nodes = {str(node.name): node for node in graph}
    inputs: dict[str, ir.Value] = {}
    outputs = []
    for layer in family_of(lowered.spec).block_layers(lowered.spec):
        product = nodes[layer.name]
        first = _dequantization(product) or product
        x = first.inputs[0]
        assert x is not None and x.shape is not None
        name = f"{x.dtype}x" + "x".join(map(str, x.shape))
        if name not in inputs:
            inputs[name] = ir.Value(name=name, type=x.type, shape=x.shape)
        first.replace_input_with(0, inputs[name])
        outputs.append(product.outputs[0])
    graph.inputs[:] = inputs.values()
    graph.outputs[:] = outputs
    RemoveUnusedNodesPass()(model)
    return replace(lowered, model=model)


def _dequantization(product: ir.Node) -> ir.Node | None:
    """The DequantizeLinear of the bytes that ``product`` reads, in an int8 graph."""
    x = product.inputs[0]
    producer = None if x is None else x.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None
