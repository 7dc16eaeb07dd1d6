"""The tolerance of one artifact: its precision's rule, applied to the distance of PyTorch's own run from the reference."""

from __future__ import annotations

from math import isfinite

from s2mlp_deploy.errors import ParityError
from s2mlp_deploy.gate.golden import GoldenReference
from s2mlp_deploy.schema.precision import precision as row_of
from s2mlp_deploy.schema.tolerance import Tolerance


def tolerance_for(precision: str, reference: GoldenReference) -> Tolerance:
    """The tolerance that follows from the distance of PyTorch's own run at this precision.

    Raises:
        ParityError: where that run overflows.
    """
    worst = max(d.relative_l2 for d in reference.pytorch_distances.values())
    if not isfinite(worst):
        raise ParityError(
            f"PyTorch's own run of this checkpoint in {row_of(precision).on_gpu.outputs} overflows on the golden "
            f"inputs, so no {precision} export of it can be right: choose a wider --precision, or look for weights of absurd size"
        )
    return row_of(precision).rule.tolerance(worst)


MOST_TELLING = 0.2
"""Limits up to this one show a fault. A network that trained well stays far below, at every precision."""


def caution(precision: str, reference: GoldenReference, tolerance: Tolerance) -> str | None:
    """A warning where the network itself turns rounding into large errors, so that ``tolerance`` shows few faults."""
    if tolerance.relative_l2 <= MOST_TELLING:
        return None
    case, worst = max(reference.pytorch_distances.items(), key=lambda item: item[1].relative_l2)
    return (
        f"PyTorch's own run of this checkpoint in {row_of(precision).on_gpu.outputs} is {worst.relative_l2:.2g} from float64 in the "
        f"golden case {case!r}: rounding alone changes its classes, so the check at {precision} can show few faults. Try it on images "
        "of yours with --data; saturated attention and random weights are such networks"
    )
