"""The tables of ``s2mlp-repair``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s2mlp_deploy.cli import bundle_tables, tables
from s2mlp_deploy.cli.grid import fact, new_grid
from s2mlp_deploy.pipeline.repair.request import RepairResult
from s2mlp_deploy.schema.report import OverlappingStatement, RepairRecord
from s2mlp_deploy.system.wording import counted, some

MOST_LINES = 20
"""Statements, or nodes left alone, that are shown one by one; the report has them all."""


def repair(result: RepairResult, model: Path) -> RenderableType:
    """The result of ``s2mlp-repair`` on the file ``model``."""
    record, made = result.record, result.export
    grid = new_grid()
    for name, line in _figures(record):
        fact(grid, name, line)
    for evidence in result.evidence:
        fact(grid, "evidence", f"{evidence.reason}: {evidence.figures}")
    parts: list[RenderableType] = [grid]
    if record.statements:
        parts.append(_statements(record.statements))
    parts += _left_alone(record.left_alone, result.custom_operators)
    if made is None:
        nothing = f"{model} holds no data movement to repair, so nothing was written; -o DIR makes a bundle of it all the same"
        return Group(*parts, Text(nothing))
    parts.append(bundle_tables.bundle_grid(made.bundle, unchanged=False))
    if made.verdict:
        reference = bundle_tables.reference_of(made.bundle.manifest)
        parts += [tables.parity_table(made.verdict, reference=reference), tables.verdict_line(made.verdict)]
    restored = any(statement.semantics == "inplace" for statement in record.statements)
    first = "SAME BITS with the statements as exported" if restored else "SAME BITS"
    return Group(*parts, Text(f"{first}: {model} and its repair, {_sizes(record)}", style="bold green"))


def _figures(record: RepairRecord) -> Iterator[tuple[str, str]]:
    """Nodes, and the time of a batch, before and after."""
    before, after = (sum(sum(nodes.values()) for nodes in side) for side in zip(*_regions(record), strict=True))
    yield "nodes", f"{record.nodes[0]:,} → {record.nodes[1]:,}, of which {before:,} → {after:,} only move data"
    yield "ScatterND", f"{record.scatter_nds[0]:,} → {record.scatter_nds[1]:,}"
    if record.milliseconds and record.times_faster:
        old, new = (f"{ms:.3g}" for ms in record.milliseconds)
        times, low, high = record.times_faster
        rounds = counted(record.rounds or 0, "round")
        yield (
            "latency",
            f"{old} → {new} ms a batch, {times:.2f} times as fast ({low:.2f} … {high:.2f}), medians of {rounds}",
        )


def _regions(record: RepairRecord) -> list[tuple[Mapping[str, int], Mapping[str, int]]]:
    return [(region.before, region.after) for region in record.regions] or [({}, {})]


def _statements(statements: Sequence[OverlappingStatement]) -> Table:
    """The statements whose source and destination overlap, by name."""
    table = Table(title="statements that shift in place", title_justify="left", title_style="bold")
    table.add_column("module, node", overflow="fold")
    for heading in ("buffer", "axis", "by", "written as"):
        table.add_column(heading, justify="right", no_wrap=True)
    for s in statements[:MOST_LINES]:
        name = f"{s.scope}, {s.node}" if s.scope else s.node
        table.add_row(Text(name), "×".join(map(str, s.shape)), str(s.axis), f"{s.offset:+d}", s.semantics)
    if len(statements) > MOST_LINES:
        table.add_row(f"and {len(statements) - MOST_LINES:,} more", "", "", "", "")
    return table


def _left_alone(nodes: Mapping[str, str], custom: Mapping[str, int]) -> Iterator[RenderableType]:
    by_reason: dict[str, list[str]] = {}
    for node, reason in nodes.items():
        by_reason.setdefault(reason, []).append(node)
    for reason, names in by_reason.items():
        yield Text(f"left alone, {reason}: {some(names, MOST_LINES)}", style="yellow")
    if custom:
        shown = ", ".join(f"{name} ({counted(count, 'node')})" for name, count in sorted(custom.items()))
        yield Text(f"left alone, operators that are not ONNX's own: {shown}", style="yellow")


def _sizes(record: RepairRecord) -> str:
    """The sizes at which bits were compared."""
    sizes = [", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in one.items()) for one in record.compared]
    return f"unoptimized, on noise of {'; '.join(sizes)}"
