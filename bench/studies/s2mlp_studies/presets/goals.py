"""The toolkit's goals for speed and memory, compared with measurements."""

from __future__ import annotations

from s2mlp_deploy.schema.precision import ON_CPUS
from s2mlp_deploy.system.timing import estimate
from s2mlp_studies.goal import Goal
from s2mlp_studies.presets import export_cost
from s2mlp_studies.presets.engines import EngineCost, Engines
from s2mlp_studies.presets.export_cost import ExportCost
from s2mlp_studies.presets.latency import (
    NAIVE,
    NO_SHIFT,
    OPENVINO_STATIC,
    UINT8,
    Benchmark,
    Details,
    Latency,
    alone,
    on,
)
from s2mlp_studies.presets.models import Promises


def export_goals(cost: ExportCost, promises: Promises) -> list[Goal]:
    """Faster than ``torch.onnx.export``, in little memory."""
    naive, bare, gated = export_cost.NAIVE, export_cost.NO_GATE, export_cost.GATE
    goals = [Goal(cost.model, f"time of {naive} / {gated}", cost.speedup(gated), at_least=1)]
    if promises.export is not None:
        goals.insert(0, Goal(cost.model, f"time of {naive} / {bare}", cost.speedup(bare), at_least=promises.export))
    if promises.memory is not None:
        goals += [
            Goal(cost.model, f"memory of {way} / checkpoint", cost.memory_ratio(way), at_most=promises.memory)
            for way in (bare, gated)
        ]
    return goals


def engine_goals(engines: Engines) -> list[Goal]:
    """Engines hold the weights once, and little besides."""

    def size(cost: EngineCost) -> Goal:
        what = f"size of {cost.precision} engine ({cost.lowering}) / its weights"
        return Goal(engines.model, what, estimate([cost.size_ratio]), at_most=1.15)

    return [size(engines.largest(precision)) for precision in ON_CPUS]


def latency_goals(latency: Latency, promises: Promises) -> list[Goal]:
    """Far faster than the naive export, and int8 faster still; and the details, where they were measured."""
    model, fp32, int8, everything = latency.model, latency.fp32, latency.int8, latency.everything
    goals = [
        _latency(model, everything, NAIVE, fp32, at_least=promises.naive),
        _latency(model, everything, fp32, int8, at_least=promises.int8),
    ]
    return goals + (_detailed_goals(latency, latency.details) if latency.details else [])


def _detailed_goals(latency: Latency, details: Details) -> list[Goal]:
    """A shift that costs nearly nothing, bytes that cost nothing, and int8 that is worth it.

    int8 is worth it where it is also faster than what others make of int8, is hardly more than its matrix products, and
    gains from a second thread, too.
    """
    model, fp32, int8, everything = latency.model, latency.fp32, latency.int8, latency.everything
    products = everything.over(on(int8), alone(int8))
    second_thread = details.second_thread_gain(int8, fp32)
    return [
        _latency(model, everything, NAIVE, int8, at_least=4),
        _latency(model, details.lowerings, details.best_lowering, NO_SHIFT, at_most=1.03),
        _latency(model, everything, OPENVINO_STATIC, int8, at_least=1.05),
        Goal(model, f"latency of {int8} / its products alone", products, at_most=1.3),
        _latency(model, details.inputs, UINT8, fp32, at_most=1.02),
        Goal(model, "gain of a 2nd thread, int8 / fp32", second_thread, at_least=1),
    ]


def _latency(model: str, benchmark: Benchmark, numerator: str, denominator: str, **limit: float) -> Goal:
    measured = benchmark.over(on(numerator), on(denominator))
    return Goal(model, f"latency of {numerator} / {denominator}", measured, **limit)
