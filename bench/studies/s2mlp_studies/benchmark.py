"""A benchmark of s2mlp-bench, with ratios of its candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s2mlp_bench.benchmark import Plan, Result
from s2mlp_deploy.system.timing import Estimate, ratio
from s2mlp_studies.goal import Goal


@dataclass(frozen=True)
class Benchmark:
    """A plan and its result."""

    plan: Plan
    result: Result

    def over(self, candidate: str, other: str) -> Estimate:
        """Its time in units of the ``other``'s."""
        return ratio(self.samples_ms(candidate), self.samples_ms(other))

    def samples_ms(self, candidate: str) -> Sequence[float]:
        """Milliseconds of each batch."""
        return self.result.samples_ms[candidate]

    def goal(self, model: str, numerator: str, denominator: str, **limit: float) -> Goal:
        """A limit of the latency of a ``numerator`` in units of the ``denominator``'s, both on one thread."""
        return Goal(
            model, f"latency of {numerator} / {denominator}", self.over(on(numerator), on(denominator)), **limit
        )


def on(source: str, threads: int = 1) -> str:
    """The name of a candidate on so many threads."""
    return f"{source}, {threads} thread{'s' if threads > 1 else ''}"
