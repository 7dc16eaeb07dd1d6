"""A goal: a measured ratio and the limit that it must keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from s2mlp_deploy.system.timing import Estimate
from s2mlp_studies.tables import new_table, with_interval

NOTES = (
    "Brackets: 95% confidence interval of the median; with fewer than six rounds, smallest and largest. "
    "Unclear: the limit is inside; more rounds, or a less busy machine, would tell."
)


@dataclass(frozen=True)
class Goal:
    """A ratio that must be at least or at most a limit."""

    model: str
    what: str
    measured: Estimate
    at_least: float | None = None
    at_most: float | None = None

    @property
    def limit(self) -> str:
        """The limit in words."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"

    @property
    def holds(self) -> bool:
        """Whether the median keeps the limit."""
        above = self.at_least is None or self.measured.median >= self.at_least
        return above and (self.at_most is None or self.measured.median <= self.at_most)

    @property
    def clear(self) -> bool:
        """Whether the whole interval is on the same side of the limit."""
        limits = [limit for limit in (self.at_least, self.at_most) if limit is not None]
        return not any(self.measured.low < limit < self.measured.high for limit in limits)

    @property
    def verdict(self) -> str:
        """Whether it holds, and whether that is clear, in words."""
        return ("holds" if self.holds else "MISSED") + ("" if self.clear else ", unclear")


def goal_table(goals: Sequence[Goal]) -> RenderableType:
    """Each goal, what was measured, and whether it holds."""
    table = new_table("goals", "ratio", "goal", "measured", "")
    for goal in goals:
        verdict = Text(goal.verdict, style="yellow" if not goal.clear else "green" if goal.holds else "red")
        table.add_row(goal.model, goal.what, goal.limit, with_interval(goal.measured, 3), verdict)
    table.columns[1].justify = "left"
    return Group(table, Text(NOTES))
