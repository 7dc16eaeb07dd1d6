"""What the toolkit promises about speed and memory, held against measurements."""

from __future__ import annotations

from dataclasses import dataclass

from bench import export_cost
from bench.export_cost import ExportCost
from bench.interleaving import Estimate
from bench.latency import INT8, NAIVE, Latency

INT8_GAIN = {"wide": 3.3, "deep": 2.8}
"""On processors with VNNI. Wide gains more: a larger share of its time is matrix products."""


@dataclass(frozen=True)
class Goal:
    """A ratio that must be at least or at most a limit."""

    model: str
    what: str
    measured: Estimate
    at_least: float | None = None
    at_most: float | None = None

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


def export_goals(cost: ExportCost) -> list[Goal]:
    """Faster than ``torch.onnx.export``, in little memory."""
    naive, bare, gated = export_cost.NAIVE, export_cost.NO_GATE, export_cost.GATE
    return [
        Goal(cost.model, f"time of {naive} / {bare}", cost.speedup(bare), at_least=5),
        Goal(cost.model, f"time of {naive} / {gated}", cost.speedup(gated), at_least=1),
        Goal(cost.model, f"memory of {bare} / checkpoint", cost.memory_ratio(bare), at_most=3),
        Goal(cost.model, f"memory of {gated} / checkpoint", cost.memory_ratio(gated), at_most=3),
    ]


def latency_goals(latency: Latency) -> list[Goal]:
    """A shift that costs nearly nothing and far less than the naive export's, and int8 that is worth it."""
    best = latency.best
    return [
        Goal(latency.model, f"latency of {best} / no shift", latency.over_no_shift(best), at_most=1.03),
        Goal(latency.model, f"latency of {NAIVE} / {best}", latency.speedup(best), at_least=1.25),
        Goal(latency.model, "latency of gather / int8", latency.gain_of_int8(), at_least=INT8_GAIN[latency.model]),
        Goal(latency.model, f"latency of {NAIVE} / int8", latency.speedup(INT8), at_least=4),
    ]
