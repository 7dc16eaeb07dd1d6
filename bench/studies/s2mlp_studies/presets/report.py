"""The measurements for people, as tables, and for machines, as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from s2mlp_bench.report.table import render
from s2mlp_bench.results.document import document as document_of
from s2mlp_deploy.system import machine
from s2mlp_studies.goal import Goal
from s2mlp_studies.presets import export_cost
from s2mlp_studies.presets.engines import Engines
from s2mlp_studies.presets.export_cost import ExportCost
from s2mlp_studies.presets.latency import NO_SHIFT, Details, Latency, alone, on
from s2mlp_studies.repair.measure import Repaired
from s2mlp_studies.repair.table import document as repair_document
from s2mlp_studies.scale import document as scale_document
from s2mlp_studies.scale.scaling import Scaling
from s2mlp_studies.tables import new_table, with_interval
from s2mlp_studies.training.measure import ShiftCost

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
    table = new_table(
        f"{cost.model}: export as a whole process, {rounds} interleaved rounds, checkpoint "
        f"{cost.checkpoint_bytes / 1e6:.0f} MB",
        "time, s",
        "CPU, s",
        f"{export_cost.NAIVE} / it",
        "peak, MB",
        "(peak − imports) / checkpoint",
    )
    for name in cost.samples:
        compared = name != export_cost.IMPORTS
        table.add_row(
            name,
            f"{cost.wall_s(name).median:.1f}",
            f"{cost.cpu_s(name).median:.1f}",
            with_interval(cost.speedup(name)) if compared else "",
            f"{cost.peak_rss_bytes(name).median / 1e6:.0f}",
            with_interval(cost.memory_ratio(name)) if compared else "",
        )
    return table


def latency_tables(latency: Latency) -> RenderableType:
    """Float32 and int8 against all baselines, the lowerings, and what is left to gain."""
    return Group(
        Text(f"{latency.model}: batch 1", style="bold"),
        render(latency.everything.result, latency.environment),
        *(
            [lowering_table(latency.model, latency.details), gain_table(latency, latency.details)]
            if latency.details
            else []
        ),
    )


def lowering_table(model: str, details: Details) -> RenderableType:
    """Each way to write the shift, and what it costs beyond no shift at all."""
    benchmark = details.lowerings
    summary = benchmark.result.summary
    table = new_table(f"{model}: lowerings, {summary.rounds} interleaved rounds", "latency, ms", f"it / {NO_SHIFT}")
    for f in summary.figures:
        table.add_row(summary.label(f), f"{f.p50_ms:.1f}", with_interval(benchmark.over(f.name, on(NO_SHIFT)), 3))
    return table


def gain_table(latency: Latency, details: Details) -> RenderableType:
    """The cost of float32 and int8 beyond their matrix products, and their gain from a second thread."""
    table = new_table(f"{latency.model}: what is left to gain", "it / its products alone", "1 thread / 2 threads")
    for bundle in (latency.fp32, latency.int8):
        beyond = latency.everything.over(on(bundle), alone(bundle))
        table.add_row(bundle, with_interval(beyond, 3), with_interval(details.second_thread(bundle), 3))
    return table


def engine_table(engines: Engines) -> RenderableType:
    """Each engine's build cost, size and kernels' traffic, with that of shift-only kernels apart."""
    rounds = len(engines.costs[0].builds)
    table = new_table(
        f"{engines.model}: {engines.runtime} engine built as a whole process, batch 1, {rounds} round"
        f"{'s' if rounds > 1 else ''}",
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


def goal_table(goals: Sequence[Goal]) -> RenderableType:
    """Each goal, what was measured, and whether it holds."""
    table = new_table("goals", "ratio", "goal", "measured", "")
    for goal in goals:
        verdict = Text("holds", style="green") if goal.holds else Text("MISSED", style="red")
        if not goal.clear:
            verdict.append(", unclear", style="yellow")
        table.add_row(goal.model, goal.what, goal.limit, with_interval(goal.measured, 3), verdict)
    table.columns[1].justify = "left"
    return Group(table, Text(NOTES))


@dataclass(frozen=True)
class Scaled:
    """How the cost of the checkpoint with this ``sha256`` grows, and what the machine was like."""

    model: str
    sha256: str
    scaling: Scaling
    environment: Mapping[str, object]


@dataclass
class Measured:
    """Everything that ``python -m s2mlp_studies.presets`` has measured so far."""

    environment: RenderableType
    exports: list[ExportCost] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    scalings: list[Scaled] = field(default_factory=list)
    engines: list[Engines] = field(default_factory=list)
    repairs: list[Repaired] = field(default_factory=list)
    training: list[ShiftCost] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)


def document(measured: Measured) -> dict[str, Any]:
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
            for cost in measured.exports
        ],
        "latencies": [_latency_document(latency) for latency in measured.latencies],
        "scalings": [
            {"model": s.model, **scale_document.document(s.scaling, s.sha256, s.environment)} for s in measured.scalings
        ],
        "engines": [
            {
                "model": built.model,
                "runtime": built.runtime,
                "engines": [{**asdict(cost), "builds": [b._asdict() for b in cost.builds]} for cost in built.costs],
            }
            for built in measured.engines
        ],
        "repairs": [repair_document(found) for found in measured.repairs],
        "training": [asdict(cost) for cost in measured.training],
        "goals": [{**asdict(goal), "holds": goal.holds, "clear": goal.clear} for goal in measured.goals],
    }


def _latency_document(latency: Latency) -> dict[str, Any]:
    return {
        "model": latency.model,
        **{name: document_of(c.plan, c.result, latency.environment) for name, c in latency.benchmarks.items()},
    }
