"""The goals of engines, compared with measurements."""

from __future__ import annotations

from s2mlp_deploy.schema.precision import ON_CPUS
from s2mlp_deploy.system.timing import estimate
from s2mlp_studies.engines.measure import EngineCost, Engines
from s2mlp_studies.goal import Goal


def engine_goals(engines: Engines) -> list[Goal]:
    """Engines hold the weights once, and little besides."""

    def size(cost: EngineCost) -> Goal:
        what = f"size of {cost.precision} engine ({cost.lowering}) / its weights"
        return Goal(engines.model, what, estimate([cost.size_ratio]), at_most=1.15)

    return [size(engines.largest(precision)) for precision in ON_CPUS]
