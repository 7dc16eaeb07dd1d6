"""The part that measures repairs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.system.progress import Listener
from s2mlp_studies.engines.measure import require_tensorrt_rtx
from s2mlp_studies.part import SEED, Finding, Part, Run, announce
from s2mlp_studies.repair.goals import repair_goals
from s2mlp_studies.repair.measure import Plan, measure_repair
from s2mlp_studies.repair.nets import NETS
from s2mlp_studies.repair.table import document, repair_tables


def measure(run: Run) -> Iterator[Finding]:
    """All networks, whose repairs stand in the same tables."""
    plan = Plan(run.rounds, run.repeats or 1, _kernels_can_be_counted(run.listener), random.Random(SEED))
    repairs = []
    for net in NETS:
        with TemporaryDirectory() as directory:
            repairs.append(measure_repair(net, Path(directory), plan, announce))
    goals = [goal for found in repairs for goal in repair_goals(found)]
    samples = {"networks": [document(found) for found in repairs]}
    yield Finding("all", "Networks with a shift inside", repair_tables(repairs), samples, goals)


def _kernels_can_be_counted(listener: Listener) -> bool:
    try:
        require_tensorrt_rtx()
    except RuntimeMissingError as error:
        listener.warn(f"kernels are not counted: {error}")
        return False
    return True


PART = Part(
    "repair",
    "Repair of what others exported",
    "latency, kernels and nodes of networks before and after `s2mlp-repair`, and the cost of the repair",
    measure,
    why={
        "memory of s2mlp-repair": "**Memory of s2mlp-repair.** Each session of ONNX Runtime has the weights, beside the "
        "graph as given.",
    },
)
