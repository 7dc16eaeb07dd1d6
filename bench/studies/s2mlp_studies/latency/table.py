"""Latency as tables, and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s2mlp_bench.report.table import render
from s2mlp_bench.results.document import document as document_of
from s2mlp_studies.benchmark import on
from s2mlp_studies.latency.measure import NO_SHIFT, Details, Latency, alone
from s2mlp_studies.tables import new_table, with_interval


def latency_tables(latency: Latency) -> RenderableType:
    """Float32 and int8 against all baselines, the lowerings, and what is left to gain."""
    tables = [
        Text(f"{latency.model}: batch 1", style="bold"),
        render(latency.everything.result, latency.environment),
    ]
    if latency.details:
        tables += [lowering_table(latency.model, latency.details), gain_table(latency, latency.details)]
    return Group(*tables)


def lowering_table(model: str, details: Details) -> Table:
    """Each way to write the shift, and what it costs beyond no shift at all."""
    benchmark = details.lowerings
    summary = benchmark.result.summary
    table = new_table(f"{model}: lowerings, {summary.rounds} interleaved rounds", "latency, ms", f"it / {NO_SHIFT}")
    for f in summary.figures:
        table.add_row(summary.label(f), f"{f.p50_ms:.1f}", with_interval(benchmark.over(f.name, on(NO_SHIFT)), 3))
    return table


def gain_table(latency: Latency, details: Details) -> Table:
    """The cost of float32 and int8 beyond their matrix products, and their gain from a second thread."""
    table = new_table(f"{latency.model}: what is left to gain", "it / its products alone", "1 thread / 2 threads")
    for bundle in (latency.fp32, latency.int8):
        beyond = latency.everything.over(on(bundle), alone(bundle))
        table.add_row(bundle, with_interval(beyond, 3), with_interval(details.second_thread(bundle), 3))
    return table


def document(latency: Latency) -> dict[str, Any]:
    """Every benchmark, as ``s2mlp-bench --json-file`` writes it, by name."""
    return {name: document_of(b.plan, b.result, latency.environment) for name, b in latency.benchmarks.items()}
