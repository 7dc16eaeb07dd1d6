"""The form of a value that is the same at all sizes, and cheapest of its kind: rows by a Gather, or Slice, Pad and Concat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import onnx_ir as ir

from s2mlp_deploy.passes.data_movement.cost import step_cost
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


Mergers: TypeAlias = dict[tuple[object, ...], Merger]
"""The merger for each group of roots: values that share roots share operations."""


def plans_of(trials: Sequence[Choices | None], prefer: Preference, mergers: Mergers) -> list[Plan]:
    """The preferred plan of a value, then one of the other kind, as far as there are any; ``trials`` has its choices at each size."""
    present = [choices for choices in trials if choices is not None]
    if len(present) < len(trials) or any(_identities(c) != _identities(present[0]) for c in present):
        return []
    first = present[0]
    merger = mergers.setdefault(_identities(first), Merger())
    merged = [op for way in first.ways if (op := _common(merger, way, present[1:])) is not None]
    merged = [op for op in merged if _has_kernels(op, first.dtype)]
    plain = _cheapest([op for op in merged if not _gathers(op)])
    rows = _cheapest([op for op in merged if _gathers(op)])
    gather_first = prefer == "gather" and rows and plain and _price(rows) <= _GATHER_AT_MOST * _price(plain)
    order = (rows, plain) if gather_first else (plain, rows)
    return [Plan(op, first.roots, first.dtype) for op in order if op is not None]


def all_operations(results: Iterable[Operation]) -> list[Operation]:
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


def _price(operation: Operation) -> float:
    return sum(step_cost(o.steps[0]) for o in all_operations([operation]))


def _cheapest(operations: Sequence[Operation]) -> Operation | None:
    return min(operations, key=_price, default=None)


def _gathers(operation: Operation) -> bool:
    return any(o.op == "Gather" for o in all_operations([operation]))


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
    return dtype in _PADDED or all(o.op != "Pad" for o in all_operations([operation]))
