"""Decide for each value that leaves a region whether to write it anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from s2mlp_deploy.passes.data_movement.cost import START, node_cost, step_cost
from s2mlp_deploy.passes.data_movement.forms import Mergers, Plan, Preference, all_operations, plans_of
from s2mlp_deploy.passes.data_movement.leaving import Choices
from s2mlp_deploy.passes.data_movement.regions import RegionPlan, needed

_SHAPED = frozenset({"Expand", "Reshape"})
"""The operators that are cheaper where their second input is a constant."""


@dataclass(frozen=True, eq=False)
class Decider:
    """Chooses the plans of regions. ``choices`` has the ways to write values at each size; ``shape_of`` gives shapes at the first."""

    prefer: Preference
    choices: Sequence[Mapping[ir.Value, Choices]]
    shape_of: Callable[[ir.Value], tuple[int, ...] | None]

    def decide(self, nodes: Sequence[ir.Node], leaving: Sequence[ir.Value], required: set[ir.Node]) -> RegionPlan:
        """The plan of a region.

        It writes anew the values that depend on ``required`` nodes, and others where that is cheaper. Scatters that stay
        after that are written in the form that is not preferred, if that is cheaper.
        """
        mergers: Mergers = {}
        plans = {v: plans_of([trial.get(v) for trial in self.choices], self.prefer, mergers) for v in leaving}
        inside = set(nodes)
        price = _Price(self, leaving, inside)
        first = {v: found[0] for v, found in plans.items() if found}
        must = {v: first[v] for v in first if required and required.intersection(needed([v], inside))}
        starts = [price.improved(start, first, must) for start in (first, must)]
        best = min(starts, key=price)
        others = {
            v: found[1]
            for v, found in plans.items()
            if v not in best and len(found) > 1 and any(n.op_type.startswith("Scatter") for n in needed([v], inside))
        }
        best = price.improved(best, others, must)
        return RegionPlan(tuple(nodes), tuple(leaving), best, tuple(v for v, found in plans.items() if not found))

    def node_cost(self, node: ir.Node) -> float:
        """The price of a node that is there; a shape that is no constant must be computed first."""
        shape = node.inputs[1] if node.op_type in _SHAPED and len(node.inputs) > 1 else None
        producer = shape.producer() if shape is not None else None
        size = max((prod(self.shape_of(v) or (0,)) for v in node.outputs), default=0)
        extra = START if producer is not None and producer.op_type != "Constant" else 0.0
        return node_cost(node.op_type, size, self._row(node)) + extra

    def _row(self, node: ir.Node) -> int:
        """The number of neighbouring elements that a Gather takes together."""
        data = self.shape_of(node.inputs[0]) if node.op_type == "Gather" and node.inputs[0] is not None else None
        if not data:
            return 1
        return prod(data[node.attributes.get_int("axis", 0) % len(data) + 1 :])


@dataclass(frozen=True, eq=False)
class _Price:
    """The price of a region for a choice of plans: that of the new operators, and of the nodes that stay."""

    decider: Decider
    leaving: Sequence[ir.Value]
    inside: set[ir.Node]

    def __call__(self, chosen: Mapping[ir.Value, Plan]) -> float:
        kept = set(needed([v for v in self.leaving if v not in chosen], self.inside))
        new = all_operations([plan.operation for plan in chosen.values()])
        return sum(self.decider.node_cost(node) for node in kept) + sum(step_cost(o.steps[0]) for o in new)

    def improved(
        self, chosen: Mapping[ir.Value, Plan], possible: Mapping[ir.Value, Plan], must: Mapping[ir.Value, Plan]
    ) -> Mapping[ir.Value, Plan]:
        """``chosen``, with plans taken or left one by one where that is cheaper; those that must be stay."""
        price = self(chosen)
        for value, plan in possible.items():
            if value in must:
                continue
            other = {v: p for v, p in chosen.items() if v is not value}
            if value not in chosen:
                other[value] = plan
            if (changed := self(other)) < price:
                chosen, price = other, changed
        return chosen
