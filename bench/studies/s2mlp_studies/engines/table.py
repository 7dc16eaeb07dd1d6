"""Engines as a table, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from s2mlp_deploy.system.wording import counted
from s2mlp_studies.engines.measure import Engines
from s2mlp_studies.tables import new_table


def engine_table(engines: Engines) -> Table:
    """Each engine's build cost, size and kernels' traffic, with that of shift-only kernels apart."""
    rounds = counted(len(engines.costs[0].builds), "round")
    table = new_table(
        f"{engines.model}: {engines.runtime} engine built as a whole process, batch 1, {rounds}",
        "",
        "time, s",
        "CPU, s",
        "peak, MB",
        "engine, MB",
        "/ weights",
        "kernels",
        "of shift",
        "moved, MB",
        "by shift",
    )
    for cost in engines.costs:
        figures = cost.figures
        table.add_row(
            cost.lowering,
            cost.precision,
            f"{cost.wall_s.median:.1f}",
            f"{cost.cpu_s.median:.1f}",
            f"{cost.peak_rss_bytes.median / 1e6:.0f}",
            f"{figures.engine_bytes / 1e6:.1f}",
            f"{cost.size_ratio:.3f}",
            f"{figures.kernels}",
            f"{figures.shift_kernels}",
            f"{figures.moved_bytes / 1e6:.1f}",
            f"{figures.shift_moved_bytes / 1e6:.1f}",
        )
    return table


def document(engines: Engines) -> dict[str, Any]:
    """Every figure, in seconds and bytes."""
    costs = [{**asdict(cost), "builds": [build._asdict() for build in cost.builds]} for cost in engines.costs]
    return {"runtime": engines.runtime, "engines": costs}
