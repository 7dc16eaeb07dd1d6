"""Recognise operators that only move values, as the shift does: int8 values pass through them as bytes."""

from __future__ import annotations

import onnx_ir as ir

MOVES = frozenset({"Reshape", "Transpose", "Split", "Slice", "Concat", "Gather", "Expand", "Pad"})
"""The operators that lowerings of the shift move values with."""


def only_moves(source: ir.Value, value: ir.Value) -> bool:
    """Whether ``value`` holds values of ``source`` and nothing else, in whatever order."""
    node = value.producer()
    if value is source or node is None:
        return value is source
    if node.op_type not in MOVES or (
        node.op_type == "Pad" and node.attributes.get_string("mode", "constant") == "constant"
    ):
        return False
    return all(v is not None and only_moves(source, v) for i, v in enumerate(node.inputs) if is_data(node, i))


def is_data(node: ir.Node, index: int) -> bool:
    """Whether input ``index`` of a data-moving operator is the data, not a shape or table."""
    return index == 0 or node.op_type == "Concat"
