"""Group moving nodes into regions, and decide for each value that leaves one whether to write it anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

import onnx_ir as ir

from s2mlp_deploy.passes.data_movement.cost import START, node_cost, step_cost
from s2mlp_deploy.passes.data_movement.leaving import Choices
from s2mlp_deploy.passes.data_movement.merge import Merger, NoCommonPlanError, Operation
from s2mlp_deploy.passes.data_movement.steps import Step
from s2mlp_deploy.passes.data_movement.values import Root

Preference: TypeAlias = Literal["gather", "slice"]
"""The operators to prefer where both kinds are exact: one Gather over rows, or Slice, Pad and Concat."""

_GATHER_AT_MOST = 1.5
"""A preferred Gather may cost as many times as much as the other form."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A way to write a value, for all sizes."""

    operation: Operation
    roots: tuple[Root, ...]
    dtype: ir.DataType


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
        return set(_needed([v for v in self.leaving if v not in self.plans], set(self.nodes)))


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


class Decider:
    """Chooses the cheapest plans of regions; ``shape_of`` gives the shapes of values at the first size tried."""

    def __init__(
        self,
        prefer: Preference,
        choices: Sequence[Mapping[ir.Value, Choices]],
        shape_of: Callable[[ir.Value], tuple[int, ...] | None],
    ) -> None:
        self._prefer, self._choices, self._shape_of = prefer, choices, shape_of

    def decide(self, nodes: Sequence[ir.Node], leaving: Sequence[ir.Value], required: set[ir.Node]) -> RegionPlan:
        """The plan of a region, which must write anew what depends on ``required`` nodes, and the rest where that is cheaper."""
        mergers: dict[tuple[object, ...], Merger] = {}
        found = {v: self._plan(v, mergers) for v in leaving}
        possible = {v: plan for v, plan in found.items() if plan is not None}
        inside = set(nodes)
        must = {v for v in possible if required and required & set(_needed([v], inside))}
        best = dict(possible)
        for start in (possible, {v: plan for v, plan in possible.items() if v in must}):
            chosen = self._improved(dict(start), possible, must, (leaving, inside))
            if self._cost(chosen, leaving, inside) <= self._cost(best, leaving, inside):
                best = chosen
        impossible = tuple(v for v, plan in found.items() if plan is None)
        return RegionPlan(tuple(nodes), tuple(leaving), best, impossible)

    def _improved(
        self,
        chosen: dict[ir.Value, Plan],
        possible: Mapping[ir.Value, Plan],
        must: set[ir.Value],
        region: tuple[Sequence[ir.Value], set[ir.Node]],
    ) -> dict[ir.Value, Plan]:
        """``chosen``, with plans taken or left one by one, as long as that is cheaper."""
        price = self._cost(chosen, *region)
        for value, plan in possible.items():
            if value in must:
                continue
            other = {v: p for v, p in chosen.items() if v is not value} if value in chosen else {**chosen, value: plan}
            if (changed := self._cost(other, *region)) < price:
                chosen, price = other, changed
        return chosen

    def _cost(self, chosen: Mapping[ir.Value, Plan], leaving: Sequence[ir.Value], inside: set[ir.Node]) -> float:
        kept = set(_needed([v for v in leaving if v not in chosen], inside))
        old = sum(self._node_cost(node) for node in kept)
        return old + sum(step_cost(o.steps[0]) for o in _all_operations([p.operation for p in chosen.values()]))

    def _node_cost(self, node: ir.Node) -> float:
        """The price of a node that is there; shapes that it does not find in a constant must be computed."""
        computed = node.op_type in _SHAPED and len(node.inputs) > 1 and _is_computed(node.inputs[1])
        size = max((prod(self._shape_of(v) or (0,)) for v in node.outputs), default=0)
        return node_cost(node.op_type, size) + (START if computed else 0.0)

    def _plan(self, value: ir.Value, mergers: dict[tuple[object, ...], Merger]) -> Plan | None:
        """The preferred plan of a value that is the same at all sizes."""
        trials = [choices.get(value) for choices in self._choices]
        first = trials[0]
        if first is None or any(t is None or _identities(t) != _identities(first) for t in trials):
            return None
        merger = mergers.setdefault(_identities(first), Merger())
        merged = [op for way in first.ways if (op := _common(merger, way, trials[1:])) is not None]  # type: ignore[arg-type]
        merged = [op for op in merged if _has_kernels(op, first.dtype)]
        plain = _cheapest([op for op in merged if not _gathers(op)])
        rows = _cheapest([op for op in merged if _gathers(op)])
        if plain is None or rows is None:
            chosen = plain or rows
        elif self._prefer == "slice" or _price(rows) > _GATHER_AT_MOST * _price(plain):
            chosen = plain
        else:
            chosen = rows
        return None if chosen is None else Plan(chosen, first.roots, first.dtype)


_SHAPED = frozenset({"Expand", "Reshape"})


def _is_computed(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    return node is not None and node.op_type != "Constant"


def _identities(choices: Choices) -> tuple[object, ...]:
    """What roots are, whatever their size: values, or constants by their bytes."""
    return tuple(
        r.value if r.value is not None else (r.shape, r.array.tobytes() if r.array is not None else b"")
        for r in choices.roots
    )


def _common(merger: Merger, way: Step, others: Sequence[Choices]) -> Operation | None:
    """``way`` merged with one way of each other size."""
    steps = [way]
    for choices in others:
        for step in choices.ways:
            try:
                merger.operation((way, step))
            except NoCommonPlanError:
                continue
            steps.append(step)
            break
        else:
            return None
    try:
        return merger.operation(tuple(steps))
    except NoCommonPlanError:
        return None


def _all_operations(results: Iterable[Operation]) -> list[Operation]:
    """Every operation that ``results`` need, once, inputs first."""
    found: dict[int, Operation] = {}

    def visit(operation: Operation) -> None:
        if id(operation) not in found:
            for other in operation.inputs:
                visit(other)
            found[id(operation)] = operation

    for result in results:
        visit(result)
    return list(found.values())


def _price(operation: Operation) -> float:
    return sum(step_cost(o.steps[0]) for o in _all_operations([operation]))


def _cheapest(operations: Sequence[Operation]) -> Operation | None:
    return min(operations, key=_price, default=None)


def _gathers(operation: Operation) -> bool:
    return any(o.op == "Gather" for o in _all_operations([operation]))


_PADDED = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.INT8,
        ir.DataType.UINT8,
    }
)
"""The types that ONNX Runtime pads."""


def _has_kernels(operation: Operation, dtype: ir.DataType) -> bool:
    return dtype in _PADDED or all(o.op != "Pad" for o in _all_operations([operation]))


def _needed(values: Iterable[ir.Value], inside: set[ir.Node]) -> Iterator[ir.Node]:
    """The nodes of a region that ``values`` depend on."""
    seen: set[ir.Node] = set()
    waiting = [value.producer() for value in values]
    while waiting:
        node = waiting.pop()
        if node is not None and node in inside and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(v.producer() for v in node.inputs if v is not None)
