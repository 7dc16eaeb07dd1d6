"""The goals of an export, compared with measurements."""

from __future__ import annotations

from s2mlp_studies.export.measure import GATE, NAIVE, NO_GATE, ExportCost
from s2mlp_studies.goal import Goal
from s2mlp_studies.models import Promises


def export_goals(cost: ExportCost, promises: Promises) -> list[Goal]:
    """Faster than ``torch.onnx.export``, in little memory."""
    goals = [Goal(cost.model, f"time of {NAIVE} / {GATE}", cost.speedup(GATE), at_least=1)]
    if promises.export is not None:
        what = f"time of {NAIVE} / {NO_GATE}"
        goals.insert(0, Goal(cost.model, what, cost.speedup(NO_GATE), at_least=promises.export))
    if promises.memory is not None:
        goals += [
            Goal(cost.model, f"memory of {way} / checkpoint", cost.memory_ratio(way), at_most=promises.memory)
            for way in (NO_GATE, GATE)
        ]
    return goals
