"""Conditions that several passes require."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes import PreconditionError

_TYPES = {ir.DataType.FLOAT, ir.DataType.INT64}


def require_float32(model: ir.Model, besides: Collection[ir.DataType] = ()) -> None:
    """``model`` is a float32 graph: its constants are float32, int64 (shapes, axes and tables of positions) or ``besides``.

    Raises:
        PreconditionError: naming one that is not.
    """
    for name, value in model.graph.initializers.items():
        if value.const_value is None:
            raise PreconditionError(f"{name} has no value")
        if value.const_value.dtype not in (*_TYPES, *besides):
            raise PreconditionError(f"{name} is {value.const_value.dtype.name}, and the pass takes a float32 graph")
