"""The measurements for people, as tables, and for machines, as JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench import export_cost
from bench.engines import Engines
from bench.export_cost import ExportCost
from bench.goals import Goal
from bench.latency import (
    FLOAT,
    FLOAT_2_THREADS,
    FLOAT_PRODUCTS,
    INT8,
    INT8_2_THREADS,
    INT8_PRODUCTS,
    NAIVE,
    NO_SHIFT,
    Latency,
)
from s2mlp_deploy import machine
from s2mlp_deploy.timing import Estimate

NOTES = (
    "Brackets: 95% confidence interval of the median; with fewer than six rounds, smallest and largest. "
    "Unclear: the limit is inside; more rounds, or a less busy machine, would tell."
)


def environment() -> RenderableType:
    """The machine, how busy it is before the measurement, and the versions."""
    m = machine.describe()
    versions = ", ".join(f"{name} {version}" for name, version in machine.installed().items())
    load = f"load average {os.getloadavg()[0]:.1f}"
    return Group(
        Text(f"{m['processor']}, {m['cores']} cores, {m['system']}, Python {m['python']}, {load}"), Text(versions)
    )


def export_table(cost: ExportCost) -> RenderableType:
    """Time and peak memory of each way to export."""
    rounds = len(cost.samples[export_cost.IMPORTS])
    table = _table(
        f"{cost.model}: export as a whole process, {rounds} interleaved rounds, checkpoint "
        f"{cost.checkpoint_bytes / 1e6:.0f} MB",
        "time, s", "CPU, s", f"{export_cost.NAIVE} / it", "peak, MB", "(peak − imports) / checkpoint",
    )  # fmt: skip
    for name in cost.samples:
        compared = name != export_cost.IMPORTS
        table.add_row(
            name,
            f"{cost.wall_s(name).median:.1f}",
            f"{cost.cpu_s(name).median:.1f}",
            _show(cost.speedup(name)) if compared else "",
            f"{cost.peak_rss_bytes(name).median / 1e6:.0f}",
            _show(cost.memory_ratio(name)) if compared else "",
        )
    return table


def latency_table(latency: Latency) -> RenderableType:
    """Latency of each contestant, and its ratios to the bound, to the naive export and to int8."""
    rounds = min(map(len, latency.samples_ms.values()))
    table = _table(
        f"{latency.model}: CPU, batch 1, {rounds} interleaved rounds; ONNX Runtime on 1 thread, unless said",
        "latency, ms", f"it / {NO_SHIFT}", f"{NAIVE} / it", f"it / {INT8}",
    )  # fmt: skip
    for name in sorted(latency.samples_ms, key=lambda n: latency.over(n, NO_SHIFT).median):
        table.add_row(
            name,
            f"{latency.latency_ms(name).median:.1f}",
            _show(latency.over(name, NO_SHIFT), 3),
            _show(latency.over(NAIVE, name)),
            _show(latency.over(name, INT8), 3),
        )
    return table


def bound_table(latency: Latency) -> RenderableType:
    """What float32 and int8 cost beyond their matrix products, and what a second thread does for them."""
    table = _table(f"{latency.model}: what is left to gain", "it / its products alone", "1 thread / 2 threads")
    for name, alone, threads in ((FLOAT, FLOAT_PRODUCTS, FLOAT_2_THREADS), (INT8, INT8_PRODUCTS, INT8_2_THREADS)):
        table.add_row(name, _show(latency.over(name, alone), 3), _show(latency.over(name, threads), 3))
    return table


def engine_table(engines: Engines) -> RenderableType:
    """What each engine took to build, its size, and what its kernels move; of those, the ones that only shift."""
    rounds = len(engines.costs[0].builds)
    table = _table(
        f"{engines.model}: {engines.runtime} engine built as a whole process, batch 1, {rounds} round"
        f"{'s' if rounds > 1 else ''}",
        "", "time, s", "CPU, s", "peak, MB", "engine, MB", "/ weights", "kernels", "of shift", "moved, MB", "by shift",
    )  # fmt: skip
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


def goal_table(goals: Sequence[Goal]) -> RenderableType:
    """Each goal, what was measured, and whether it holds."""
    table = _table("goals", "ratio", "goal", "measured", "")
    for goal in goals:
        limit = f"≥ {goal.at_least:g}" if goal.at_least is not None else f"≤ {goal.at_most:g}"
        verdict = Text("holds", style="green") if goal.holds else Text("MISSED", style="red")
        if not goal.clear:
            verdict.append(", unclear", style="yellow")
        table.add_row(goal.model, goal.what, limit, _show(goal.measured, 3), verdict)
    table.columns[1].justify = "left"
    return Group(table, Text(NOTES))


def document(
    exports: Sequence[ExportCost], latencies: Sequence[Latency], engines: Sequence[Engines], goals: Sequence[Goal]
) -> dict[str, Any]:
    """Everything that was measured: raw samples in seconds, bytes and milliseconds, and the goals."""
    return {
        "machine": machine.describe(),
        "versions": machine.installed(),
        "exports": [
            {
                "model": cost.model,
                "checkpoint_bytes": cost.checkpoint_bytes,
                "samples": {name: [run._asdict() for run in runs] for name, runs in cost.samples.items()},
            }
            for cost in exports
        ],
        "latencies": [asdict(latency) for latency in latencies],
        "engines": [
            {
                "model": built.model,
                "runtime": built.runtime,
                "engines": [{**asdict(cost), "builds": [b._asdict() for b in cost.builds]} for cost in built.costs],
            }
            for built in engines
        ],
        "goals": [{**asdict(goal), "holds": goal.holds, "clear": goal.clear} for goal in goals],
    }


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _show(e: Estimate, digits: int = 2) -> str:
    return f"{e.median:.{digits}f} [{e.low:.{digits}f}, {e.high:.{digits}f}]".replace("[", r"\[")
