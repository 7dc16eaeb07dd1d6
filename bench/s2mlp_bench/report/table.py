"""A benchmark on a terminal, and as rows for machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from s2mlp_bench.benchmark import Result
from s2mlp_bench.report import section, tables
from s2mlp_bench.summary import Figures, Summary
from s2mlp_deploy.schema.size import format_size
from s2mlp_deploy.system.wording import counted

SHOWN = 4
"""Reasons why a machine is called noisy that the table lists."""


def render(result: Result, environment: Mapping[str, Any]) -> RenderableType:
    """All tables, the machine they were measured on, and whether they are reliable."""
    found = result.summary
    parts: list[RenderableType] = [_machine(environment), section.render(tables.latency(found))]
    parts += [Text(f"  {name}: {remark}", style="yellow") for name, remark in found.remarks(found.figures)]
    more = (tables.on_device(found), tables.cold(found), tables.profile(result), tables.roofline(result))
    parts += [section.render(one) for one in more if one]
    parts.append(
        Text(
            f"{counted(found.rounds, 'interleaved round')} after {found.warmup_rounds} of warm-up, in an order drawn anew each round. "
            f"Measuring itself takes {1e3 * found.overhead_ms:.1f} µs."
        )
    )
    if not found.complete:
        parts.append(Text("INCOMPLETE: interrupted before the time was up", style="bold yellow"))
    if found.stable:
        parts.append(Text("the machine held still while it was measured", style="green"))
    else:
        parts.append(Text("NOISY: another run may differ by more than the intervals say", style="bold yellow"))
        parts += [Text(f"  {reason}") for reason in found.noise[:SHOWN]]
        if len(found.noise) > SHOWN:
            parts.append(Text(f"  and {len(found.noise) - SHOWN} more"))
    return Group(*parts)


def rows(found: Summary) -> list[dict[str, object]]:
    """A flat row for each candidate; what is not known is empty."""
    return [_row(f) for f in found.figures]


def _row(f: Figures) -> dict[str, object]:
    cold = f.cold
    return {
        "name": f.name,
        "kind": f.kind,
        "precision": f.precision,
        "batch": f.point.batch,
        "threads": "" if f.point.threads is None else f.point.threads,
        "image_size": format_size(f.point.size) if f.point.size else "",
        "provider": f.point.provider or "",
        "remark": f.remark,
        "p50_ms": f.p50_ms,
        "p90_ms": f.p90_ms,
        "p99_ms": f.p99_ms,
        "mean_ms": f.mean_ms,
        "minimum_ms": f.minimum_ms,
        "images_per_s": f.images_per_s,
        "operations_per_s": "" if f.operations_per_s is None else f.operations_per_s,
        "speed": f.speed.median,
        "speed_low": f.speed.low,
        "speed_high": f.speed.high,
        "of_bound": f.of_bound.median if f.of_bound else "",
        "size_bytes": f.size_bytes,
        "load_ms": cold.load_ms if cold else "",
        "first_ms": cold.first_ms if cold else "",
        "peak_rss_bytes": cold.peak_rss_bytes if cold else "",
        "accuracy": "" if f.accuracy is None else f.accuracy,
    }


def _machine(environment: Mapping[str, Any]) -> Text:
    features = environment["features"]
    known = " ".join(features) if isinstance(features, list) else features
    return Text(
        f"{environment['processor']}, {counted(environment['usable_cores'], 'core')}, {known or 'no vector extensions known'}, governor "
        f"{environment['governor']}, load average {environment['load_average']}"
    )
