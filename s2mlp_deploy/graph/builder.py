"""Build ONNX graphs from values, and edit built ones: named nodes, initializers, casts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.lowered import IR_VERSION, OPSET
from s2mlp_deploy.schema.array import Array


class GraphBuilder:
    """Collect the nodes and initializers of a graph in the order in which they are added.

    A node is called as the layer that it stands for, and so is its output.
    """

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self._values: dict[str, ir.Value] = {}

    def constant(self, name: str, array: Array) -> ir.Value:
        """The initializer called ``name``, added by the first call with that name; later calls ignore ``array``."""
        if name not in self.initializers:
            self.initializers[name] = initializer(name, array)
        return self.initializers[name]

    def integers(self, name: str, *values: int) -> ir.Value:
        """The initializer called ``name`` that holds ``values`` as an int64 vector: a shape, axes, indices."""
        return self.constant(name, np.array(values, np.int64))

    def op(self, op_type: str, inputs: Sequence[ir.Value | None], name: str, **attributes: Any) -> ir.Value:
        """Add a node called ``name``; returns its only output, which has the same name."""
        (output,) = self._add(op_type, inputs, name, [name], attributes)
        return output

    def ops(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, count: int, **attributes: Any
    ) -> list[ir.Value]:
        """Add a node called ``name``; returns its ``count`` outputs, called ``name``0, ``name``1, …"""
        return self._add(op_type, inputs, name, [f"{name}{i}" for i in range(count)], attributes)

    def find(self, name: str) -> ir.Value | None:
        """The output called ``name`` of a node added before; None where there is none."""
        return self._values.get(name)

    def model(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], name: str) -> ir.Model:
        """The model whose graph, called ``name``, holds everything added so far."""
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self.nodes,
            initializers=list(self.initializers.values()),
            opset_imports={"": OPSET},
            name=name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="s2mlp-deploy")

    def insert_at_start(self, graph: ir.Graph) -> None:
        """Move everything added so far to the start of ``graph``."""
        graph.insert_before(graph.node(0), self.nodes)
        self._register(graph)

    def insert_at_end(self, graph: ir.Graph) -> None:
        """Move everything added so far to the end of ``graph``."""
        graph.extend(self.nodes)
        self._register(graph)

    def _register(self, graph: ir.Graph) -> None:
        for value in self.initializers.values():
            graph.register_initializer(value)

    def _add(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, outputs: list[str], attributes: dict[str, Any]
    ) -> list[ir.Value]:
        values = [ir.Value(name=output) for output in outputs]
        self.nodes.append(ir.node(op_type, inputs, attributes, outputs=values, name=name))
        self._values.update(zip(outputs, values, strict=True))
        return values


def initializer(name: str, array: Array) -> ir.Value:
    """A constant called ``name`` that belongs to no graph yet; ``array`` is shared, not copied."""
    value = ir.Value(name=name)
    set_array(value, array)
    return value


def add_initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Append an initializer called ``name``; one of that name that is there already leaves ``graph``."""
    graph.initializers.pop(name, None)
    value = initializer(name, array)
    graph.register_initializer(value)
    return value


def set_array(value: ir.Value, array: Array, dtype: ir.DataType | None = None) -> None:
    """Let the constant ``value`` hold ``array``, whose element type NumPy does not know where ``dtype`` is given."""
    value.const_value = ir.Tensor(array, dtype=dtype, name=value.name)
    value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(array.shape)


def array_of(value: ir.Value | None) -> Array | None:
    """The array that a constant holds; None for values that are computed, fed or left out."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def constant_of(value: ir.Value | None) -> Array:
    """The array that ``value`` holds, which must be a constant.

    Raises:
        ValueError: where it is not.
    """
    array = array_of(value)
    if array is None:
        raise ValueError(f"{'a missing input' if value is None else value.name} is no constant")
    return array


def remove_unused_initializers(graph: ir.Graph) -> None:
    """Delete the initializers that no node reads."""
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]


def insert_cast(
    graph: ir.Graph, value: ir.Value, dtype: ir.DataType, name: str, users: Iterable[ir.Node] | None = None
) -> ir.Value:
    """Convert ``value`` to ``dtype`` by a Cast called ``name``; ``users``, or all its readers, read the result.

    The Cast stands behind the node that computes ``value``; that of an input comes first, and that of a constant before
    its reader.
    """
    readers = set(users if users is not None else (node for node, _ in value.uses()))
    uses = [(node, index) for node, index in value.uses() if node in readers]
    result = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape)
    cast = ir.node("Cast", [value], {"to": dtype}, outputs=[result], name=name)
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, cast)
    else:
        first = graph.node(0) if value.is_graph_input() else next(node for node in graph if node in readers)
        graph.insert_before(first, cast)
    for node, index in uses:
        node.replace_input_with(index, result)
    return result


def cast_output(graph: ir.Graph, dtype: ir.DataType, name: str) -> None:
    """Cast the only output of ``graph`` to ``dtype`` under its own name; the value before it is called ``name``."""
    (output,) = graph.outputs
    result = ir.Value(name=output.name, type=ir.TensorType(dtype), shape=output.shape)
    output.name = name
    graph.append(ir.node("Cast", [output], {"to": dtype}, outputs=[result], name=f"{result.name}/cast"))
    graph.outputs[0] = result
