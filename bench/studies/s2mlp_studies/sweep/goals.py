"""The goals of a sweep, compared with measurements."""

from __future__ import annotations

from s2mlp_studies.goal import Goal
from s2mlp_studies.sweep.measure import Swept

SPEEDUP, DRIVER_MS = 1.7, 50
"""Of two workers, in units of one; of the driver an item."""


def sweep_goals(found: Swept) -> list[Goal]:
    """Two workers are nearly twice as fast as one, and the driver costs little."""
    what = f"time of {found.exports} exports on one worker / on two"
    return [
        Goal("small", what, found.speedup, at_least=SPEEDUP),
        Goal("small", "the driver's milliseconds an item", found.driver, at_most=DRIVER_MS),
    ]
