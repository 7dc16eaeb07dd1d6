"""The cost of exports as a table, and as JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from s2mlp_deploy.system.wording import counted
from s2mlp_studies.export.measure import IMPORTS, NAIVE, ExportCost
from s2mlp_studies.tables import new_table, with_interval


def export_table(cost: ExportCost) -> Table:
    """Time and peak memory of each way to export."""
    rounds = counted(len(cost.samples[IMPORTS]), "interleaved round")
    table = new_table(
        f"{cost.model}: export as a whole process, {rounds}, checkpoint {cost.checkpoint_bytes / 1e6:.0f} MB",
        "time, s",
        "CPU, s",
        f"{NAIVE} / it",
        "peak, MB",
        "(peak − imports) / checkpoint",
    )
    for name in cost.samples:
        compared = name != IMPORTS
        table.add_row(
            name,
            f"{cost.wall_s(name).median:.1f}",
            f"{cost.cpu_s(name).median:.1f}",
            with_interval(cost.speedup(name)) if compared else "",
            f"{cost.peak_rss_bytes(name).median / 1e6:.0f}",
            with_interval(cost.memory_ratio(name)) if compared else "",
        )
    return table


def document(cost: ExportCost) -> dict[str, Any]:
    """Every sample, in seconds and bytes."""
    return {
        "checkpoint_bytes": cost.checkpoint_bytes,
        "samples": {name: [run._asdict() for run in runs] for name, runs in cost.samples.items()},
    }
