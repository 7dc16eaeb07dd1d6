"""The toolkit's goals for speed and memory, compared with measurements."""

from __future__ import annotations

from dataclasses import dataclass

from s2mlp_deploy.schema.precision import ON_CPUS
from s2mlp_deploy.system.timing import Estimate, estimate
from s2mlp_studies.presets import export_cost
from s2mlp_studies.presets.engines import EngineCost, Engines
from s2mlp_studies.presets.export_cost import ExportCost
from s2mlp_studies.presets.latency import NAIVE, NO_SHIFT, OPENVINO_STATIC, UINT8, Benchmark, Latency, alone, on

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


def engine_goals(engines: Engines) -> list[Goal]:
    """Engines hold the weights once, and little besides."""

    def size(cost: EngineCost) -> Goal:
        what = f"size of {cost.precision} engine ({cost.lowering}) / its weights"
        return Goal(engines.model, what, estimate([cost.size_ratio]), at_most=1.15)

    return [size(engines.largest(precision)) for precision in ON_CPUS]


def latency_goals(latency: Latency) -> list[Goal]:
    """A shift that costs nearly nothing and far less than the naive export's, and int8 that is worth it.

    int8 is worth it where it is faster than float32 and than what others make of int8, is hardly
    more than its matrix products, and gains from a second thread, too.
    """
    model, fp32, int8 = latency.model, latency.fp32, latency.int8

    def over(benchmark: Benchmark, numerator: str, denominator: str, **limit: float) -> Goal:
        measured = benchmark.over(on(numerator), on(denominator))
        return Goal(model, f"latency of {numerator} / {denominator}", measured, **limit)

    everything = latency.everything
    products = Goal(
        model, f"latency of {int8} / its products alone", everything.over(on(int8), alone(int8)), at_most=1.3
    )
    return [
        over(latency.lowerings, latency.best_lowering, NO_SHIFT, at_most=1.03),
        over(everything, NAIVE, fp32, at_least=1.25),
        over(everything, fp32, int8, at_least=INT8_GAIN[model]),
        over(everything, NAIVE, int8, at_least=4),
        over(everything, OPENVINO_STATIC, int8, at_least=1.05),
        products,
        over(latency.inputs, UINT8, fp32, at_most=1.02),
        Goal(model, "gain of a 2nd thread, int8 / fp32", latency.second_thread_for_int8(), at_least=1),
    ]
