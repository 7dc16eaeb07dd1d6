"""The part that measures the shift in training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict

from s2mlp_studies.part import SEED, Finding, Part, Run, announce
from s2mlp_studies.training.goals import training_goals
from s2mlp_studies.training.measure import SHAPES, candidates, require_compiler
from s2mlp_studies.training.measure import measure as measure_shift
from s2mlp_studies.training.table import training_table


def measure(run: Run) -> Iterator[Finding]:
    """Maps of all models, which stand in the same table."""
    rng, shifts, costs = random.Random(SEED), candidates(), []
    for model, shape in SHAPES.items():
        announce(f"{model}: the shift, forward and backward")
        costs.append(measure_shift(model, shape, shifts, run.rounds, rng))
    goals = [goal for cost in costs for goal in training_goals(cost)]
    samples = {"maps": [asdict(cost) for cost in costs]}
    yield Finding("all", "Maps of two models", training_table(costs), samples, goals)


PART = Part(
    "training",
    "Training with the shift",
    "the shift alone, forward and backward, beside the popular statements in place",
    measure,
    require_compiler,
)
