"""The price of moving operators: what choices between exact forms compare."""

from __future__ import annotations

from collections.abc import Iterable

from s2mlp_deploy.passes.data_movement.steps import Step

START = 5000.0
"""Elements that a runtime could copy in the time that it takes to start one more operator."""

_FREE = frozenset({"Source", "Zeros", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
"""The operators that copy nothing."""

_PER_ELEMENT = {
    "Transpose": 2.0,
    "ScatterND": 3.0,
    "ScatterElements": 6.0,
    "GatherND": 3.0,
    "GatherElements": 4.0,
    "Where": 2.0,
    "Pad": 1.2,
}
"""Copying an element, relative to Slice and Concat; rough ratios in ONNX Runtime on CPUs."""

_SCATTER = 8.0
"""Starting a scatter, relative to other operators: its indices are read too, and no runtime fuses or plans it well."""

_ROW = 24.0
"""Elements that a Gather could copy in the time that it takes to find one more row."""


def node_cost(op_type: str, elements: int, row: int = 1) -> float:
    """The price of one operator with this many elements in its output; a Gather copies them in rows of ``row`` elements."""
    if op_type in _FREE:
        return START / 50
    extra = _ROW / row if op_type == "Gather" else 0.0
    start = _SCATTER * START if op_type.startswith("Scatter") else START
    return start + elements * (_PER_ELEMENT.get(op_type, 1.0) + extra)


def step_cost(step: Step) -> float:
    """The price of one step."""
    row = 1
    if step.op == "Gather":
        for size in step.shape[step.axes[0] + 1 :]:
            row *= size
    return node_cost(step.op, step.size, row)


def complexity(steps: Iterable[Step]) -> float:
    """The number of operators that copy, by kind: a price that does not depend on sizes."""
    weights = {"Transpose": 2.0, "Pad": 1.2, "Gather": 1.4}
    return sum(0.05 if step.op in _FREE else weights.get(step.op, 1.0) for step in steps)
