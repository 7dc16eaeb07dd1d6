"""Runtimes for devices as tables, and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s2mlp_bench.report.table import render
from s2mlp_bench.results.document import document as document_of
from s2mlp_deploy.system.wording import counted
from s2mlp_studies.devices.measure import Devices, Writing
from s2mlp_studies.tables import new_table, with_interval


def device_tables(found: Devices) -> RenderableType:
    """Latency and cold starts of every candidate, the candidates that were left out, and what writing a file takes."""
    parts: list[RenderableType] = [render(found.benchmark.result, found.environment)]
    parts += [Text(f"{name} is left out: {reason}") for name, reason in found.left_out.items()]
    if found.writing:
        parts.append(writing_table(found.writing))
    return Group(*parts)


def writing_table(cost: Writing) -> Table:
    """Time and peak memory of writing the float32 model for LiteRT."""
    rounds = counted(len(cost.rounds), "round")
    table = new_table(
        f"writing model.tflite as a whole process, {rounds}",
        "file, MB",
        "CPU, s",
        "imports, CPU s",
        "(peak − imports) / file",
    )
    table.add_row(
        "fp32",
        f"{cost.file_bytes / 1e6:.1f}",
        f"{cost.cpu_s.median:.1f}",
        f"{cost.imports.cpu_s:.1f}",
        with_interval(cost.memory_ratio),
    )
    return table


def document(found: Devices) -> dict[str, Any]:
    """Everything that was measured, in milliseconds, seconds and bytes."""
    writing = found.writing
    return {
        "benchmark": document_of(found.benchmark.plan, found.benchmark.result, found.environment),
        "file_bytes": dict(found.file_bytes),
        "left_out": dict(found.left_out),
        "writing": writing
        and {
            "file_bytes": writing.file_bytes,
            "rounds": [cost._asdict() for cost in writing.rounds],
            "imports": writing.imports._asdict(),
        },
    }
