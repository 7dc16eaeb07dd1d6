"""Write the convolution of a patch embedding as the matrix product that it is."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from s2mlp_deploy.graph.builder import GraphBuilder, array_of, constant_of, set_array


class PatchesAsProducts(InPlacePass):
    """Write a convolution whose patches do not overlap as a product of these patches with its weight.

    A patch is moved to a row by a Transpose, which is one kernel; the order of a row is that of the weight (output channels, input
    channels, height, width), whose numbers stay where they are.

    Matches: a Conv whose kernel is its stride, which covers an image of known size without padding, and whose result becomes tokens
    (batch · height · width, channels) by a Transpose and a Reshape that nothing else reads.
    Ensures: nothing is left that matches.
    """

    def call(self, model: ir.Model) -> PassResult:
        found = [patches for node in model.graph if (patches := _patches(node))]
        for patches in found:
            patches.replace(model.graph)
        return PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        """Nothing is left that matches."""
        if left := [str(node.name) for node in model.graph if _patches(node)]:
            raise PostconditionError(f"{', '.join(left[:4])} is a convolution still")


@dataclass(frozen=True)
class _Patches:
    """A Conv of an image of ``size``, with ``kernel``, and the nodes that make tokens of its result."""

    conv: ir.Node
    transpose: ir.Node
    reshape: ir.Node
    kernel: tuple[int, int]
    size: tuple[int, int]

    def replace(self, graph: ir.Graph) -> None:
        """Write the product in its place; the tokens keep their name."""
        image, weight, *bias = self.conv.inputs
        assert weight is not None
        (p, q), (height, width), array = self.kernel, self.size, constant_of(weight)
        c, inputs, out, name = len(array), array.shape[1], GraphBuilder(), str(self.conv.name)
        x = out.op(
            "Reshape", [image, self._shape(out, "cells", -1, inputs, height // p, p, width // q, q)], f"{name}/cells"
        )
        x = out.op("Transpose", [x], f"{name}/patches", perm=[0, 2, 4, 1, 3, 5])
        x = out.op("Reshape", [x, self._shape(out, "rows", -1, inputs * p * q)], f"{name}/rows")
        tokens = out.op("Gemm", [x, weight, *bias], str(self.reshape.outputs[0].name), transB=1)
        for value, dims in zip(
            (node.outputs[0] for node in out.nodes),
            (
                (None, inputs, height // p, p, width // q, q),
                (None, height // p, width // q, inputs, p, q),
                (None, inputs * p * q),
                (None, c),
            ),
            strict=True,
        ):
            value.type, value.shape = self.conv.outputs[0].type, ir.Shape(dims)
        set_array(weight, array.reshape(c, -1), weight.dtype)
        for value in out.initializers.values():
            graph.register_initializer(value)
        old = [self.conv, self.transpose, self.reshape]
        ir.convenience.replace_nodes_and_values(graph, self.reshape, old, out.nodes, self.reshape.outputs, [tokens])

    def _shape(self, out: GraphBuilder, name: str, *sizes: int) -> ir.Value:
        return out.integers(f"{self.conv.name}/{name}_shape", *sizes)


def _patches(conv: ir.Node) -> _Patches | None:
    """The patches that the node ``conv`` multiplies; None where it does not match."""
    if conv.op_type != "Conv" or conv.inputs[0] is None:
        return None
    weight, image = array_of(conv.inputs[1]), conv.inputs[0].shape
    transpose = _only_reader(conv, "Transpose")
    reshape = _only_reader(transpose, "Reshape") if transpose else None
    if weight is None or weight.ndim != 4 or image is None or transpose is None or reshape is None:
        return None
    size, kernel, shape = tuple(image)[2:], weight.shape[2:], array_of(reshape.inputs[1])
    attributes = conv.attributes
    fits = (
        len(conv.inputs[1].uses()) == 1  # type: ignore[union-attr]
        and tuple(attributes.get_ints("strides", (1, 1))) == kernel
        and not any(attributes.get_ints("pads", (0, 0, 0, 0)))
        and set(attributes.get_ints("dilations", (1, 1))) == {1}
        and attributes.get_int("group", 1) == 1
        and attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and tuple(transpose.attributes.get_ints("perm", ())) == (0, 2, 3, 1)
        and shape is not None
        and shape.tolist() == [-1, len(weight)]
        and all(isinstance(n, int) and n % k == 0 for n, k in zip(size, kernel, strict=True))
    )
    return _Patches(conv, transpose, reshape, kernel, size) if fits else None  # type: ignore[arg-type]


def _only_reader(node: ir.Node, op_type: str) -> ir.Node | None:
    """The one node that reads the result of ``node``, if it is of this type."""
    uses = node.outputs[0].uses()
    (reader,) = [user for user, _ in uses] if len(uses) == 1 else [None]
    return (
        reader if reader is not None and reader.op_type == op_type and not node.outputs[0].is_graph_output() else None
    )
