"""Repairs as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.console import Group, RenderableType

from s2mlp_deploy.system.wording import counted
from s2mlp_studies.repair.measure import AFTER, BEFORE, Repaired
from s2mlp_studies.tables import new_table, with_interval


def repair_tables(repairs: Sequence[Repaired]) -> RenderableType:
    """Each network before and after, and the cost of its repair."""
    return Group(gain_table(repairs), cost_table(repairs))


def gain_table(repairs: Sequence[Repaired]) -> RenderableType:
    """Each network before and after."""
    rounds = len(repairs[0].samples_ms[BEFORE])
    table = new_table(
        f"exported by torch.onnx.export → repaired: one thread, {rounds} interleaved rounds",
        "latency, ms",
        "repaired / exported",
        "nodes",
        "ScatterND",
        "kernels",
    )
    for found in repairs:
        before, after = found.before, found.after
        table.add_row(
            found.model,
            _change(*(f"{median(found.samples_ms[name]):.1f}" for name in (BEFORE, AFTER))),
            with_interval(found.latency_ratio),
            _change(before.nodes, after.nodes),
            _change(before.scatter_nds, after.scatter_nds),
            "" if before.kernels is None or after.kernels is None else _change(before.kernels, after.kernels),
        )
    return table


def cost_table(repairs: Sequence[Repaired]) -> RenderableType:
    """Time and peak memory of each repair."""
    rounds = counted(len(repairs[0].repairs), "round")
    table = new_table(
        f"s2mlp-repair as a whole process, {rounds}",
        "file, MB",
        "time, s",
        "CPU, s",
        "peak, MB",
        "(peak − imports) / file",
    )
    for found in repairs:
        table.add_row(
            found.model,
            f"{found.file_bytes / 1e6:.1f}",
            f"{found.wall_s.median:.1f}",
            f"{median(cost.cpu_s for cost in found.repairs):.1f}",
            f"{median(cost.peak_rss_bytes for cost in found.repairs) / 1e6:.0f}",
            with_interval(found.memory_ratio),
        )
    return table


def document(found: Repaired) -> dict[str, Any]:
    """Everything that was measured, in milliseconds, seconds and bytes."""
    return {
        **asdict(found),
        "repairs": [cost._asdict() for cost in found.repairs],
        "imports": found.imports._asdict(),
    }


def _change(before: object, after: object) -> str:
    return f"{before} → {after}"
