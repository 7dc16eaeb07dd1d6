"""The standing of a race for people, as tables, and for machines, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.standing import Figures, Standing
from s2mlp_deploy.render import size

SHOWN = 4
"""Reasons why a machine is called noisy that the table lists."""


def render(found: Standing, environment: Mapping[str, Any]) -> RenderableType:
    """All tables, what they were measured on, and how far they can be believed."""
    parts: list[RenderableType] = [_machine(environment), _latency(found)]
    if any(f.cold for f in found.figures):
        parts.append(_cold(found))
    parts.append(
        Text(
            f"{found.rounds} interleaved rounds after {found.warmup_rounds} of warm-up, in an order drawn anew each round. "
            "× first: how many times as fast as the first, median of the ratios within a round, with its 95% interval. "
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


def rows(found: Standing) -> list[dict[str, object]]:
    """A flat row for each entry."""
    return [_row(f) for f in found.figures]


def _row(f: Figures) -> dict[str, object]:
    cold = f.cold
    return {
        "name": f.name, "p50_ms": f.p50_ms, "p90_ms": f.p90_ms, "p99_ms": f.p99_ms, "mean_ms": f.mean_ms,
        "minimum_ms": f.minimum_ms, "images_per_s": f.images_per_s, "speed": f.speed.median, "speed_low": f.speed.low,
        "speed_high": f.speed.high, "size_bytes": f.size_bytes, "load_ms": cold.load_ms if cold else "",
        "first_ms": cold.first_ms if cold else "", "peak_rss_bytes": cold.peak_rss_bytes if cold else "",
    }  # fmt: skip


def _machine(environment: Mapping[str, Any]) -> Text:
    features = environment["features"]
    known = " ".join(features) if isinstance(features, list) else features
    return Text(
        f"{environment['processor']}, {environment['usable_cores']} cores, {known or 'no vector extensions known'}, governor "
        f"{environment['governor']}, load average {environment['load_average']}"
    )


def _latency(found: Standing) -> Table:
    table = Table(title="milliseconds a batch", title_justify="left", title_style="bold")
    table.add_column("bundle", overflow="fold")
    for heading in ("p50", "p90", "p99", "mean", "minimum", "images/s", "× first", "95% interval"):
        table.add_column(heading, justify="right")
    for index, f in enumerate(found.figures):
        interval = f"{f.speed.low:.2f} … {f.speed.high:.2f}" + ("" if f.differs else ": no difference shown")
        times = [_figure(value) for value in (f.p50_ms, f.p90_ms, f.p99_ms, f.mean_ms, f.minimum_ms)]
        table.add_row(f.name, *times, _figure(f.images_per_s), f"{f.speed.median:.2f}", interval if index else "")
    return table


def _cold(found: Standing) -> Table:
    table = Table(title="a cold start, in a process of its own", title_justify="left", title_style="bold")
    table.add_column("bundle", overflow="fold")
    for heading in ("load, ms", "first batch, ms", "peak memory", "artifact"):
        table.add_column(heading, justify="right")
    for f in {f.bundle: f for f in found.figures}.values():
        if f.cold:
            figures = (_figure(f.cold.load_ms), _figure(f.cold.first_ms), size(f.cold.peak_rss_bytes))
            table.add_row(f.bundle, *figures, size(f.size_bytes))
    return table


def _figure(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
