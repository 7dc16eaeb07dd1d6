"""Group moving nodes into regions: they read one another's results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from s2mlp_deploy.passes.data_movement.forms import Plan


@dataclass(frozen=True, eq=False)
class RegionPlan:
    """A region: its nodes, the values that leave it, and the plan of each that is written anew."""

    nodes: tuple[ir.Node, ...]
    leaving: tuple[ir.Value, ...]
    plans: Mapping[ir.Value, Plan]
    impossible: tuple[ir.Value, ...]
    """The values for which there is no plan."""

    @property
    def kept(self) -> set[ir.Node]:
        """The nodes that stay."""
        return set(needed([v for v in self.leaving if v not in self.plans], set(self.nodes)))


def regions(
    graph: ir.Graph, moving: set[ir.Node], leaving: Iterable[ir.Value]
) -> Iterator[tuple[list[ir.Node], list[ir.Value]]]:
    """The nodes and leaving values of each region: moving nodes that read one another's results."""
    group: dict[ir.Node, list[ir.Node]] = {}
    for node in graph:
        if node not in moving:
            continue
        producers = [value.producer() for value in node.inputs if value is not None]
        joined = {id(group[p]): group[p] for p in producers if p is not None and p in group}
        merged: list[ir.Node] = max(joined.values(), key=len, default=[])
        for other in joined.values():
            if other is not merged:
                merged.extend(other)
                group.update(dict.fromkeys(other, merged))
        merged.append(node)
        group[node] = merged
    values: dict[int, list[ir.Value]] = {}
    for value in leaving:
        values.setdefault(id(group[value.producer()]), []).append(value)  # type: ignore[index]
    for nodes in {id(g): g for g in group.values()}.values():
        if id(nodes) in values:
            yield nodes, values[id(nodes)]


def needed(values: Iterable[ir.Value], inside: set[ir.Node]) -> Iterator[ir.Node]:
    """The nodes of a region that ``values`` depend on."""
    seen: set[ir.Node] = set()
    waiting = [value.producer() for value in values]
    while waiting:
        node = waiting.pop()
        if node is not None and node in inside and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(v.producer() for v in node.inputs if v is not None)
