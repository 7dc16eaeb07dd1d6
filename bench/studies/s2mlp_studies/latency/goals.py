"""The goals of latency, compared with measurements."""

from __future__ import annotations

from s2mlp_studies.benchmark import on
from s2mlp_studies.goal import Goal
from s2mlp_studies.latency.measure import NAIVE, NO_SHIFT, OPENVINO_STATIC, UINT8, Details, Latency, alone
from s2mlp_studies.models import Promises


def latency_goals(latency: Latency, promises: Promises) -> list[Goal]:
    """Far faster than the naive export, and int8 faster still; and the details, where they were measured."""
    model, fp32, int8, everything = latency.model, latency.fp32, latency.int8, latency.everything
    goals = [
        everything.goal(model, NAIVE, fp32, at_least=promises.naive),
        everything.goal(model, fp32, int8, at_least=promises.int8),
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
        everything.goal(model, NAIVE, int8, at_least=4),
        details.lowerings.goal(model, details.best_lowering, NO_SHIFT, at_most=1.03),
        everything.goal(model, OPENVINO_STATIC, int8, at_least=1.05),
        Goal(model, f"latency of {int8} / its products alone", products, at_most=1.3),
        details.inputs.goal(model, UINT8, fp32, at_most=1.02),
        Goal(model, "gain of a 2nd thread, int8 / fp32", second_thread, at_least=1),
    ]
