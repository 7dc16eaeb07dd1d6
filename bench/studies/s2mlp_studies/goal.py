"""A goal: a measured ratio and the limit that it must keep."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.system.timing import Estimate


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
