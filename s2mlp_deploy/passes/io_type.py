"""The element type of a graph's input and logits: casts at the border, where it is not the type that the graph computes in."""

from __future__ import annotations

import onnx_ir as ir


def cast_io(model: ir.Model, dtype: ir.DataType) -> None:
    """Give the images that ``model`` takes, and the logits that it returns, the element type ``dtype``, in place."""
    graph = model.graph
    (images,), (logits,) = graph.inputs, graph.outputs
    if images.dtype != dtype:
        _cast_input(graph, images, dtype)
    if logits.dtype != dtype:
        _cast_output(graph, logits, dtype)


def _cast_input(graph: ir.Graph, images: ir.Value, dtype: ir.DataType) -> None:
    own = images.type
    assert own is not None
    uses = list(images.uses())
    inner = ir.Value(name=f"{images.name}/{_word(own.dtype)}", type=own, shape=images.shape)
    images.type = ir.TensorType(dtype)
    cast = ir.node("Cast", [images], {"to": own.dtype}, outputs=[inner], name=str(inner.name))
    for user, index in uses:
        user.replace_input_with(index, inner)
    graph.insert_before(graph.node(0), cast)


def _cast_output(graph: ir.Graph, logits: ir.Value, dtype: ir.DataType) -> None:
    """The cast value takes over the name of the logits."""
    assert logits.dtype is not None
    name = str(logits.name)
    cast = ir.Value(name=name, type=ir.TensorType(dtype), shape=logits.shape)
    logits.name = f"{name}/{_word(logits.dtype)}"
    graph.append(ir.node("Cast", [logits], {"to": dtype}, outputs=[cast], name=f"{name}/cast"))
    graph.outputs[0] = cast


def _word(dtype: ir.DataType) -> str:
    """The type as NumPy calls it."""
    return str(dtype.numpy().name)
