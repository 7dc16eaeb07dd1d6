"""Give a graph's input and logits an element type: casts at the border, where the graph computes in another."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from s2mlp_deploy.graph.builder import cast_output, insert_cast


class CastIo(InPlacePass):
    """Make ``dtype`` the element type of the images that a graph takes and of the logits that it returns.

    Requires: one input and one output, whose types are known.
    Ensures: both have that type and their names.
    """

    def __init__(self, dtype: ir.DataType) -> None:
        self.dtype = dtype

    def requires(self, model: ir.Model) -> None:
        """One input, one output, of known types."""
        (images,), (logits,) = model.graph.inputs, model.graph.outputs
        if images.dtype is None or logits.dtype is None:
            raise ValueError("the type of the input or output is unknown")

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        (images,), (logits,) = graph.inputs, graph.outputs
        own, computed = images.dtype, logits.dtype
        assert own is not None and computed is not None
        if own != self.dtype:
            images.type = ir.TensorType(self.dtype)
            insert_cast(graph, images, own, f"{images.name}/{_word(own)}")
        if computed != self.dtype:
            cast_output(graph, self.dtype, f"{logits.name}/{_word(computed)}")
        return PassResult(model, modified=(own, computed) != (self.dtype, self.dtype))

    def ensures(self, model: ir.Model) -> None:
        """Input and output have the type."""
        for value in (*model.graph.inputs, *model.graph.outputs):
            if value.dtype != self.dtype:
                raise PostconditionError(f"{value.name} is {value.dtype}: expected {self.dtype}")


def _word(dtype: ir.DataType) -> str:
    """The type as NumPy calls it."""
    return str(dtype.numpy().name)
