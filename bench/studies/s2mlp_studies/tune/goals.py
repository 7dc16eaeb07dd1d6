"""The goals of a tune, compared with measurements."""

from __future__ import annotations

from s2mlp_deploy.system.timing import estimate
from s2mlp_studies.goal import Goal
from s2mlp_studies.tune.measure import Tuned

SECONDS, CHOICE = 120, 1.03
"""Of a tune with six candidates; of its choice, in units of the best candidate's time."""


def tune_goals(found: Tuned) -> list[Goal]:
    """A tune takes little time, its choice is near the best, and a second one chooses the same."""
    same = float(found.chosen[0] == found.chosen[1])
    return [
        Goal(found.model, "seconds of s2mlp-tune", estimate([found.seconds]), at_most=SECONDS),
        Goal(found.model, "latency of the choice / the best of a full race", found.choice_ratio, at_most=CHOICE),
        Goal(found.model, "share of second tunes that choose the same", estimate([same]), at_least=1),
    ]
