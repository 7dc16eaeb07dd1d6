"""The goal of the shift to train with, compared with measurements."""

from __future__ import annotations

from s2mlp_studies.goal import Goal
from s2mlp_studies.training.measure import COMPILED, ShiftCost

SHARE = 0.3
"""Of the time of the popular statements, forward and backward."""


def training_goals(cost: ShiftCost) -> list[Goal]:
    """Compiled, the shift takes a fraction of the time of the popular statements."""
    what = "training time of compiled shift / in place, eager"
    return [Goal(cost.model, what, cost.share(COMPILED), at_most=SHARE)]
