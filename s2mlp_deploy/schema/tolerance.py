"""Tolerances: the largest distance of an artifact's logits from the reference, derived from PyTorch's own distance."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10

from s2mlp_deploy.schema.strict_model import StrictModel


class Tolerance(StrictModel):
    """The largest ``relative_l2`` and the smallest ``top1_agreement`` that pass."""

    relative_l2: float
    top1_agreement: float


@dataclass(frozen=True)
class Rule:
    """Derives a precision's tolerance from the distance between PyTorch's own run at that precision and the reference.

    relative_l2 ≤ ``factor`` · max(that distance, ``floor``), rounded up to one digit.
    """

    factor: float
    floor: float
    top1_agreement: float

    def tolerance(self, torch_relative_l2: float) -> Tolerance:
        """The tolerance for a model where PyTorch's own run differs from the reference by ``torch_relative_l2``."""
        limit = round_up(self.factor * max(torch_relative_l2, self.floor))
        return Tolerance(relative_l2=limit, top1_agreement=self.top1_agreement)


def round_up(value: float) -> float:
    """``value`` rounded up to one significant digit, so that a limit is the same wherever it is computed."""
    unit = 10.0 ** floor(log10(value))
    return float(f"{ceil(value / unit - 1e-9) * unit:.0e}")
