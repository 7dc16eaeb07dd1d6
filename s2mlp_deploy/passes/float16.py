"""float16 and bfloat16 in the graph itself.

Precision is a property of the graph, not a switch of the runtime: weights and activations have the type that the file says.
passes/io_type.py gives input and logits theirs.

GPUs multiply float16 and add up in float32, so graphs for them are float16 throughout. On CPUs float16 is for the file's
size: its matrices are float16, and everything is computed in float32. Left to itself, ONNX Runtime adds up in float16 on
ARM processors that can (docs/numerics.md has figures), and rounds after every layer on all others.

LayerNormalization stays one operator, whose mean and variance ONNX computes in float32 (``stash_type`` 1); decomposed, it
overflows (NVIDIA/TensorRT issue 2564).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir


def to_float16(model: ir.Model) -> ir.Model:
    """A copy of ``model`` whose weights, activations, input and logits are float16."""
    model = model.clone()
    _narrow(model.graph, ir.DataType.FLOAT16)
    (images,) = model.graph.inputs
    images.type = ir.TensorType(ir.DataType.FLOAT16)
    return model


def store_float16(model: ir.Model) -> ir.Model:
    """A copy of ``model`` whose matrices are float16, widened where they are used: everything is computed in float32.

    Runtimes widen them once, when they load the file. Biases and LayerNorm's vectors, which take no room, stay float32, as
    input and logits do.
    """
    model = model.clone()
    graph = model.graph
    for name, value in matrices(graph).items():
        (user, index), *others = value.uses()
        assert value.const_value is not None and not others
        value.const_value = ir.Tensor(value.const_value.numpy().astype(np.float16), name=name)
        value.type = ir.TensorType(ir.DataType.FLOAT16)
        wide = ir.Value(name=f"{name}/float32", type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
        graph.insert_before(
            user, ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, outputs=[wide], name=str(wide.name))
        )
        user.replace_input_with(index, wide)
    return model


def to_bfloat16(model: ir.Model) -> ir.Model:
    """A copy of ``model`` whose weights, activations and logits are bfloat16.

    The input stays float32, and so do convolutions, which ONNX has in bfloat16 from opset 22 on.
    bfloat16 has float32's range: nothing overflows that did not before.
    """
    model = model.clone()
    graph = model.graph
    convolutions = [node for node in graph if node.op_type == "Conv"]
    kept = {value.name for node in convolutions for value in node.inputs[1:] if value is not None}
    _narrow(graph, ir.DataType.BFLOAT16, kept)
    for node in convolutions:
        _in_float32(graph, node)
    return model


def _narrow(graph: ir.Graph, dtype: ir.DataType, kept: Collection[str | None] = ()) -> None:
    """Round the weights, but for those ``kept``, and retype what nodes give."""
    for name, value in list(graph.initializers.items()):
        if name not in kept and value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
            rounded = value.const_value.numpy().astype(dtype.numpy())
            value.const_value = ir.Tensor(rounded, dtype=dtype, name=name)
            value.type = ir.TensorType(dtype)
    for node in graph:
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.type = ir.TensorType(dtype)


def matrices(graph: ir.Graph) -> dict[str, ir.Value]:
    """The checkpoint's matrices and convolutions, by name: not the vectors of ones that stand in for γ, nor what shifts."""
    return {
        name: value for name, value in graph.initializers.items()
        if name.endswith(".weight") and value.const_value is not None and value.const_value.shape.rank() > 1
    }  # fmt: skip


def _in_float32(graph: ir.Graph, node: ir.Node) -> None:
    """``node`` between casts; what the graph itself is given is float32 already."""
    x, (y,) = node.inputs[0], node.outputs
    assert x is not None
    if x is not graph.inputs[0]:
        wide = ir.Value(name=f"{node.name}/x/float32", type=ir.TensorType(ir.DataType.FLOAT), shape=x.shape)
        graph.insert_before(node, ir.node("Cast", [x], {"to": ir.DataType.FLOAT}, outputs=[wide], name=str(wide.name)))
        node.replace_input_with(0, wide)
    uses = list(y.uses())
    narrow = ir.Value(name=f"{node.name}/bfloat16", type=ir.TensorType(ir.DataType.BFLOAT16), shape=y.shape)
    y.type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_after(
        node, ir.node("Cast", [y], {"to": ir.DataType.BFLOAT16}, outputs=[narrow], name=str(narrow.name))
    )
    for user, index in uses:
        user.replace_input_with(index, narrow)
