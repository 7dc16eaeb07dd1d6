"""Write the plans of a region into its graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.graph.builder import initializer
from s2mlp_deploy.passes.data_movement.forms import Plan
from s2mlp_deploy.passes.data_movement.merge import Operation
from s2mlp_deploy.passes.data_movement.regions import RegionPlan
from s2mlp_deploy.passes.data_movement.values import Root
from s2mlp_deploy.schema.array import Array

_AXES_AS_INPUT = 13
"""The operator set from which on Squeeze and Unsqueeze take their axes as an input."""


class Emitter:
    """Adds nodes to a graph; numbers that several nodes read are one initializer."""

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self._graph, self._opset = graph, opset
        self._numbers: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._names = (
            {v.name for node in graph for v in node.outputs} | {*graph.initializers} | {v.name for v in graph.inputs}
        )

    def replace(self, region: RegionPlan) -> list[ir.Node]:
        """Write each value of ``region`` that has a plan anew, behind the node that made it; old nodes stay, unread.

        Returns the new nodes.
        """
        written: dict[int, ir.Value] = {}
        added: list[ir.Node] = []
        for old in region.leaving:
            if (plan := region.plans.get(old)) is None:
                continue
            producer = old.producer()
            if producer is None:
                continue
            nodes: list[ir.Node] = []
            new = self._value(plan.operation, plan, str(old.name), (written, nodes))
            if old.is_graph_output() and (
                new.producer() is None or new.is_graph_output() or new.producer() not in nodes
            ):
                new = self.node("Identity", [new], f"{old.name}/same", nodes)
            if new.producer() in nodes:
                new.shape, new.type = old.shape, old.type
            self._graph.insert_after(producer, nodes)
            added += nodes
            name, is_last = old.name, bool(nodes) and new.producer() is nodes[-1]
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            if is_last:
                old.name, new.name = self._free(f"{name}/replaced"), name
        return added

    def _value(
        self, operation: Operation, plan: Plan, base: str, done: tuple[dict[int, ir.Value], list[ir.Node]]
    ) -> ir.Value:
        written, nodes = done
        if id(operation) in written:
            return written[id(operation)]
        if operation.op == "Source":
            value = self._source(plan.roots[operation.index])
        elif operation.op == "Zeros":
            value = self.number(np.zeros(operation.steps[0].shape, plan.dtype.numpy()), "zeros")
        else:
            inputs = [self._value(other, plan, base, done) for other in operation.inputs]
            if operation.sizes:
                rank = len(operation.inputs[1].steps[0].shape)
                inputs[1] = self.sizes_of(inputs[1], rank, operation.sizes, base, nodes)
            attributes = dict(operation.attributes)
            for name, array in operation.numbers.items():
                if operation.op in ("Squeeze", "Unsqueeze") and self._opset < _AXES_AS_INPUT:
                    attributes[name] = array.tolist()
                else:
                    inputs.append(self.number(array, name))
            value = self.node(operation.op, inputs, f"{base}/{operation.op.lower()}", nodes, attributes)
        written[id(operation)] = value
        return value

    def sizes_of(self, source: ir.Value, rank: int, axes: Sequence[int], base: str, nodes: list[ir.Node]) -> ir.Value:
        """The sizes that ``source``, of this rank, has on ``axes``; −1 − n stands for the constant n."""
        constants = [-1 - axis for axis in axes if axis < 0]
        numbering = iter(range(rank, rank + len(constants)))
        places = [next(numbering) if axis < 0 else axis for axis in axes]
        shape = self.node("Shape", [source], f"{base}/shape", nodes)
        if constants:
            sizes = self.number(np.array(constants, np.int64), "sizes")
            shape = self.node("Concat", [shape, sizes], f"{base}/sizes", nodes, {"axis": 0})
        if places != list(range(rank + len(constants))):
            indices = self.number(np.array(places, np.int64), "axes")
            shape = self.node("Gather", [shape, indices], f"{base}/sizes", nodes, {"axis": 0})
        return shape

    def _source(self, root: Root) -> ir.Value:
        if root.value is not None:
            return root.value
        if root.array is None:
            raise ValueError("memory is no source")
        return self.number(np.ascontiguousarray(root.array), "constant")

    def node(
        self,
        op_type: str,
        inputs: list[ir.Value],
        name: str,
        nodes: list[ir.Node],
        attributes: dict[str, int | str | list[int]] | None = None,
    ) -> ir.Value:
        """The output of a new node, which is added to ``nodes``."""
        name = self._free(name)
        value = ir.Value(name=name)
        nodes.append(ir.node(op_type, inputs, attributes or {}, outputs=[value], name=name))
        return value

    def number(self, array: Array, role: str) -> ir.Value:
        """The initializer that holds ``array``."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._numbers:
            value = initializer(self._free(f"moves/{role}"), array)
            self._graph.register_initializer(value)
            self._numbers[key] = value
        return self._numbers[key]

    def _free(self, name: str) -> str:
        """``name``, or the first of its kind that is free."""
        count, found = 0, name
        while found in self._names:
            count += 1
            found = f"{name}{count}"
        self._names.add(found)
        return found
