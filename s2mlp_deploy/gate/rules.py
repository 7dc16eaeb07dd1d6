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
