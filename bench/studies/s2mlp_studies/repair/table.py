"""Repairs as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.console import RenderableType

from s2mlp_studies.repair.measure import AFTER, BEFORE, GraphCount, Repaired
from s2mlp_studies.tables import new_table, with_interval


def repair_table(repairs: Sequence[Repaired]) -> RenderableType:
    """Each network before and after, and the cost of its repair."""
    rounds = len(repairs[0].samples_ms[BEFORE])
    table = new_table(
        f"exported by torch.onnx.export, and repaired: one thread, {rounds} interleaved rounds",
        "latency, ms",
        "after / before",
        "nodes",
        "ScatterND",
        "kernels",
        "repair, s",
        "memory / file",
        "file, MB",
    )
    for found in repairs:
        before, after = found.before, found.after
        table.add_row(
            found.model,
            _change(*(f"{median(found.samples_ms[name]):.1f}" for name in (BEFORE, AFTER))),
            with_interval(found.latency_ratio),
            _change(before.nodes, after.nodes),
            _change(before.scatter_nds, after.scatter_nds),
            _kernels(before, after),
            f"{found.wall_s.median:.1f}",
            f"{found.memory_ratio.median:.2f}",
            f"{found.file_bytes / 1e6:.0f}",
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


def _kernels(before: GraphCount, after: GraphCount) -> str:
    return "" if before.kernels is None or after.kernels is None else _change(before.kernels, after.kernels)
