"""The goals of a repair, compared with measurements."""

from __future__ import annotations

from s2mlp_deploy.system.timing import estimate
from s2mlp_studies.goal import Goal
from s2mlp_studies.repair.measure import Repaired

DEEP, YOLO = "S²-MLP-deep", "YOLO-like"

LATENCY = {DEEP: 0.75, YOLO: 0.75}
"""Where the shift takes a large share of the time; anywhere else a repair slows nothing down."""

SECONDS, MEMORY = 20, 3
"""Of a repair of deep, the largest; what imports take is not counted as memory."""


def repair_goals(found: Repaired) -> list[Goal]:
    """A repaired file runs faster, in fewer kernels; a repair of a large file takes little time and memory."""
    goals = [
        Goal(found.model, "latency of repaired / exported", found.latency_ratio, at_most=LATENCY.get(found.model, 1))
    ]
    if found.kernel_ratio is not None:
        goals.append(Goal(found.model, "kernels of repaired / exported", estimate([found.kernel_ratio]), at_most=0.5))
    if found.model == DEEP:
        goals += [
            Goal(found.model, "seconds of s2mlp-repair", found.wall_s, at_most=SECONDS),
            Goal(found.model, "memory of s2mlp-repair / file", found.memory_ratio, at_most=MEMORY),
        ]
    return goals
