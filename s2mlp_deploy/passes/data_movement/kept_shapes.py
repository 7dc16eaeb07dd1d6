"""Read the shapes of values that are gone from values that stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from s2mlp_deploy.passes.data_movement.emit import Emitter
from s2mlp_deploy.passes.data_movement.merge import Shapes, axes_with
from s2mlp_deploy.passes.data_movement.regions import RegionPlan


class ShapeReaders:
    """The Shape nodes that read values inside of a region that was written anew; they would keep the old nodes alive.

    ``shapes`` holds the shape of a value at each size that was tried.
    """

    def __init__(self, graph: ir.Graph, shapes: Mapping[ir.Value, Shapes]) -> None:
        self._graph, self._shapes = graph, shapes
        self._order = {node: i for i, node in enumerate(graph)}

    def redirect(self, region: RegionPlan, emitter: Emitter) -> None:
        """Let each such node read the same sizes from a root of the region, where they are found there."""
        gone = set(region.nodes) - region.kept
        roots = {r.value: None for plan in region.plans.values() for r in plan.roots if r.value is not None}
        for node in [n for old in gone for v in old.outputs for n, _ in v.uses() if n.op_type == "Shape"]:
            sources = [v for v in roots if self._is_before(v, node)]
            value = node.inputs[0]
            if (
                value is not None
                and value in self._shapes
                and (found := self._found(self._shapes[value], sources)) is not None
            ):
                self._replace(node, found, emitter)

    def _is_before(self, value: ir.Value, node: ir.Node) -> bool:
        producer = value.producer()
        return producer is None or self._order.get(producer, len(self._order)) < self._order.get(node, -1)

    def _found(self, shapes: Shapes, sources: Iterable[ir.Value]) -> tuple[ir.Value, tuple[int, ...]] | None:
        """A source, and for each size of a shape its axis there, or −1 − the size where that is a constant."""
        for source in sources:
            if (axes := axes_with(zip(*shapes, strict=True), self._shapes.get(source, []))) is not None:
                return source, axes
        return None

    def _replace(self, node: ir.Node, found: tuple[ir.Value, tuple[int, ...]], emitter: Emitter) -> None:
        source, axes = found
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(axes))
        nodes: list[ir.Node] = []
        shape = emitter.sizes_of(source, len(self._shapes[source][0]), axes[start:end], str(node.name), nodes)
        self._graph.insert_before(node, nodes)
        node.outputs[0].replace_all_uses_with(shape, replace_graph_outputs=True)
